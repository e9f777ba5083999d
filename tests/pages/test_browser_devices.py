"""What a real Chromium does for the pages beside showing them: notifications, and a place among a phone's apps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

from opencode_notify.notice import Notice
from opencode_notify.outlets.web_push import payload
from pages.conftest import PHONE
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import BrowserContext, CDPSession, Page

    from pages.conftest import World


class Worker:
    """The service worker of a page, as the browser's push service drives it."""

    def __init__(self, page: Page, origin: str) -> None:
        self._page = page
        self._origin = origin
        self._cdp: CDPSession = page.context.new_cdp_session(page)
        self._registrations: list[str] = []
        self._cdp.on("ServiceWorker.workerRegistrationUpdated", self._note)
        self._cdp.send("ServiceWorker.enable")

    def push(self, message: str) -> None:
        """Deliver a push."""
        eventually(self._is_there, "a registration")
        (registration,) = set(self._registrations)
        told = {"origin": self._origin, "registrationId": registration, "data": message}
        self._cdp.send("ServiceWorker.deliverPushMessage", told)

    def shown(self) -> list[tuple[str, str, str]]:
        """Return title, body and page of the notifications that are shown."""
        script = """async () => (await (await navigator.serviceWorker.ready).getNotifications())
            .map((each) => [each.title, each.body, each.data.url])"""
        return [tuple(each) for each in self._page.evaluate(script)]

    def _is_there(self) -> bool:
        self._page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        return bool(self._registrations)

    def _note(self, told: dict[str, Any]) -> None:
        self._registrations += [each["registrationId"] for each in told["registrations"] if not each["isDeleted"]]


def test_a_push_is_shown_with_a_receipt_and_taken_back(world: World, device: Callable[..., BrowserContext]) -> None:
    context = device()
    context.grant_permissions(["notifications"], origin=world.site.url)
    page = context.new_page()
    page.goto(f"{world.site.url}/inbox")
    worker = Worker(page, world.site.url)
    notice = Notice(
        id="0123456789abcdef0123", title="laptop asks", body="Since 14:02.", url=f"{world.site.url}/told/1"
    )
    worker.push((payload(notice) or b"").decode())
    eventually(lambda: world.pages.told.seen == [("shown", notice.id)], "a receipt")
    assert worker.shown() == [(notice.title, notice.body, notice.url)]
    worker.push((payload(replace(notice, withdrawn=True)) or b"").decode())
    eventually(lambda: worker.shown() == [], "the end of the notification")
    worker.push("no JSON")
    eventually(lambda: worker.shown() == [("opencode-relay", "", "/inbox")], "something")
    assert world.pages.told.seen == [("shown", notice.id)]


def test_a_notification_leads_nowhere_but_here(world: World, device: Callable[..., BrowserContext]) -> None:
    context = device()
    context.grant_permissions(["notifications"], origin=world.site.url)
    page = context.new_page()
    page.goto(f"{world.site.url}/inbox")
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    (worker,) = context.service_workers
    opened = worker.evaluate(
        """async (urls) => {
          const opened = [];
          self.clients.openWindow = async (url) => opened.push(url);
          for (const url of urls) {
            await self.registration.showNotification("x", { data: { url } });
            const [notification] = await self.registration.getNotifications();
            self.dispatchEvent(new NotificationEvent("notificationclick", { notification }));
            if ((await self.registration.getNotifications()).length) throw new Error("it stays");
          }
          return opened;
        }""",
        [f"{world.site.url}/told/1", "https://evil.example.edu/", "//evil.example.edu", "javascript:alert(1)", None],
    )
    assert opened == [f"{world.site.url}/told/1", "/inbox", "/inbox", "/inbox", f"{world.site.url}/null"]


FAKE_PUSH_MANAGER = """
let endpoint = "";
const made = (made = endpoint) => ({
  toJSON: () => ({ endpoint: made, keys: { p256dh: "point", auth: "secret" } }),
  unsubscribe: async () => { endpoint = ""; },
});
Notification.requestPermission = async () => "granted";
PushManager.prototype.getSubscription = async () => endpoint ? made() : null;
PushManager.prototype.subscribe = async (options) => {
  endpoint = `https://push.example.net/${options.applicationServerKey}`;
  return made();
};
"""
"""Stands for the part of a browser that asks its maker's push service, which a headless one does not do."""


def test_who_wants_it_is_notified_on_this_device_until_they_do_not(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    pushes = world.pages.pushes
    page = device().new_page()
    page.add_init_script(FAKE_PUSH_MANAGER)
    page.goto(f"{world.site.url}/inbox")
    pushes.unavailable = "This push service is not known here."
    begin = page.get_by_role("button", name="Notify me on this device", exact=True)
    end = page.get_by_role("button", name="Do not notify me on this device any more")
    begin.click()
    expect(page.locator("#device")).to_contain_text(pushes.unavailable)
    pushes.unavailable = ""
    begin.click()
    end.click()
    expect(begin).to_be_visible()
    endpoint = f"https://push.example.net/{pushes.public_key}"
    assert [(login, each.endpoint, each.auth) for login, each, _ in pushes.added] == [("ann", endpoint, "secret")]
    assert pushes.removed == [("ann", endpoint)]


def test_it_can_be_installed(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device(**PHONE).new_page()
    page.goto(f"{world.site.url}/inbox")
    cdp = page.context.new_cdp_session(page)
    assert cdp.send("Page.getAppManifest")["errors"] == []
    errors = cdp.send("Page.getInstallabilityErrors")["installabilityErrors"]
    # Only of such a context: it is a private window.
    assert [each["errorId"] for each in errors if each["errorId"] != "in-incognito"] == []
