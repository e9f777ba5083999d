"""The pages of asks in a real Chromium, over https: how they look, and all that a finger or a keyboard does there."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from opencode_notify.notice import Notice
from opencode_notify.outlets.web_push import payload
from opencode_pages import inbox
from opencode_pages.documents import Ended, Part, Running
from opencode_pages.streams import MAX_STREAMS
from support.browser import CONTRASTS, DESKTOP, HttpsSite, certificate, chromium, fits, screenshot, trusting
from support.fake_pages import EDIT, PERMISSION, QUESTION, SINCE, FakePages
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, CDPSession, Page

RELAY = "relay.example.org"
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
SIZES: dict[str, dict[str, Any]] = {"desktop": {"viewport": DESKTOP}, "phone": PHONE}
LONG = PERMISSION.model_copy(
    update={
        "handle": "a9",
        "id": "per_9",
        "digest": "9" * 32,
        "parts": (
            Part(label="permission", text="bash"),
            Part(
                label="command", text="echo ⟨Cyrillic: \u0430⟩ \\u202e " + "x" * 300 + "\nmake" * 80, kind="command"
            ),
        ),
    }
)


class World:
    """A site whose pages and asks are another's for each test, under one certificate and one address."""

    def __init__(self, site: HttpsSite) -> None:
        self.site = site
        self.renew()

    def renew(self) -> None:
        self.pages = FakePages(PERMISSION, EDIT, QUESTION, public_url=self.site.url)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.pages.app(scope, receive, send)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"), RELAY)


@pytest.fixture(scope="module")
def browser(files: tuple[Path, Path]) -> Iterator[Browser]:
    # Without trust there is no service worker, nor anything to install.
    with chromium(trusting(files[0])) as browser:
        yield browser


@pytest.fixture(scope="module")
def shared_world(files: tuple[Path, Path]) -> Iterator[World]:
    site = HttpsSite(RELAY, files)
    world = World(site)
    site.app = world
    with site:
        yield world


@pytest.fixture
def world(shared_world: World) -> World:
    shared_world.renew()
    return shared_world


@pytest.fixture
def device(browser: Browser, world: World) -> Iterator[Callable[..., BrowserContext]]:
    """Make a new device on which Ann is logged in."""
    with ExitStack() as stack:

        def make(**options: Any) -> BrowserContext:
            options.setdefault("viewport", DESKTOP)
            made = stack.enter_context(browser.new_context(locale="en", timezone_id="UTC", **options))
            made.add_cookies([{"name": "session", "value": "session-of-ann", "url": world.site.url}])
            return made

        yield make
        # Streams end with the pages; the next test begins with none.
        stack.close()
        eventually(lambda: world.pages.source.streams == 0, "the end of all streams")


def looks_right(page: Page, name: str) -> None:
    fits(page)
    assert page.evaluate(CONTRASTS) == []
    screenshot(page, f"pages-{name}")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_pages_fit_and_can_be_read(
    world: World, device: Callable[..., BrowserContext], size: str, scheme: str
) -> None:
    source = world.pages.source
    source.running = (
        Running(
            instance="laptop", session="s14", title="Write the docs", since=SINCE, note="asked again: overloaded"
        ),
    )
    source.ended = (
        Ended(result="done", instance="server", session="s2", title="Tidy up", at=SINCE),
        Ended(result="failed", instance="laptop", session="s3", title="Deploy", problem="no credit left", at=SINCE),
    )
    source.asks["a6"] = PERMISSION.model_copy(update={"handle": "a6", "state": "settled", "settled": "by bob"})
    source.asks["a9"] = LONG
    page = device(**SIZES[size], color_scheme=scheme).new_page()
    problems: list[str] = []
    page.on("console", lambda told: problems.append(told.text) if told.type in {"error", "warning"} else None)
    page.goto(f"{world.site.url}/inbox")
    expect(page.get_by_role("heading", name="4 asks wait for you")).to_be_visible()
    expect(page.get_by_role("button", name="Notify me on this device")).to_be_visible()
    looks_right(page, f"inbox-{size}-{scheme}")
    for handle in ("a3", "a4", "a5", "a6", "a9"):
        page.goto(f"{world.site.url}/asks/{handle}")
        looks_right(page, f"{handle}-{size}-{scheme}")
        for button in page.locator(".bar button").all():
            expect(button).to_be_in_viewport(ratio=1)
    assert problems == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("has_script", [True, False], ids=["script", "no script"])
def test_asks_are_decided_one_after_the_other(
    world: World, device: Callable[..., BrowserContext], size: str, has_script: bool
) -> None:
    page = device(**SIZES[size], java_script_enabled=has_script).new_page()
    page.goto(f"{world.site.url}/inbox")
    page.get_by_role("link", name="rm -rf build").click()
    page.get_by_label("What to do instead").fill("Use make clean")
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_role("status").filter(has_text="a3 was rejected")).to_be_visible()
    page.get_by_role("link", name="edit src/total.py").click()
    page.get_by_role("button", name="Allow once").click()
    page.get_by_role("link", name="Which branch").click()
    page.get_by_role("group", name="Which branch").get_by_label("main").check()
    page.get_by_label("Linux").check()
    page.get_by_label("Windows").check()
    page.get_by_role("group", name="What is the release called?").get_by_role("textbox").fill("Snow goose")
    page.get_by_role("button", name="Answer").click()
    expect(page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
    assert [decision.answer for decision in world.pages.source.decisions] == [
        "reject: Use make clean",
        "once",
        ["main", "Linux, Windows", "Snow goose"],
    ]
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("Log in")).to_be_visible()


def test_by_keyboard_alone_and_enter_is_never_yes(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device().new_page()
    page.goto(f"{world.site.url}/asks/a3")
    order = [
        page.get_by_role("link", name="inbox"),
        page.get_by_role("button", name="Log out"),
        page.get_by_role("region", name="command"),
        page.get_by_label("What to do instead"),
        page.get_by_role("button", name="Reject"),
        page.get_by_role("button", name="Always"),
        page.get_by_role("button", name="Allow once"),
    ]
    for control in order:
        page.keyboard.press("Tab")
        expect(control).to_be_focused()
    screenshot(page, "pages-focus")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(page.get_by_role("status").filter(has_text="a3 was allowed")).to_be_visible()
    page.goto(f"{world.site.url}/asks/a5")
    page.get_by_role("radio", name="main").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="a5 was rejected")).to_be_visible()
    assert [decision.answer for decision in world.pages.source.decisions] == ["always", "reject"]


def test_who_writes_an_answer_chooses_it_by_that(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device().new_page()
    page.goto(f"{world.site.url}/asks/a5")
    item = page.get_by_role("group", name="Which branch")
    item.get_by_label("main").check()
    item.get_by_role("textbox").fill("hotfix")
    expect(item.get_by_label("In your own words:")).to_be_checked()


def test_what_changed_meanwhile_is_shown_anew(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device(**PHONE).new_page()
    page.goto(f"{world.site.url}/asks/a3")
    page.get_by_label("What to do instead").fill("typed before")
    world.pages.source.put(EDIT.model_copy(update={"handle": "a3"}))
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_role("alert")).to_contain_text("It changed since you looked")
    expect(page.get_by_label("What to do instead")).to_have_value("typed before")
    expect(page.get_by_text("Prices are in cents")).to_be_visible()
    looks_right(page, "changed")
    assert world.pages.source.decisions == []


def test_right_to_left_letters_turn_nothing_that_would_run(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    letters = "\u05d0\u05d1"
    command = f"rm {letters} 1 {letters} 2"
    parts = (Part(label="command", text=f"{command}\nmake", kind="command"),)
    world.pages.source.put(PERMISSION.model_copy(update={"parts": parts}))
    page = device().new_page()
    page.goto(f"{world.site.url}/asks/a3")
    lefts = page.get_by_role("region", name="command").evaluate(
        """(element, length) => [...Array(length).keys()].map((at) => {
          const range = document.createRange();
          range.setStart(element.firstChild, at);
          range.setEnd(element.firstChild, at + 1);
          return range.getBoundingClientRect().left;
        })""",
        len(command),
    )
    assert lefts == sorted(lefts)


def test_what_comes_is_on_the_open_page_at_once_and_takes_no_focus(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    page = device().new_page()
    page.goto(f"{world.site.url}/inbox")
    eventually(lambda: world.pages.source.streams == 1, "a stream")
    page.get_by_role("link", name="edit src/total.py").focus()
    world.pages.source.put(PERMISSION.model_copy(update={"handle": "a8", "summary": "bash make install"}))
    expect(page.get_by_role("link", name="make install")).to_be_visible()
    expect(page).to_have_title("(4) Inbox · opencode-relay")
    expect(page.get_by_role("link", name="edit src/total.py")).to_be_focused()


def test_a_page_without_its_stream_asks_and_says_when_it_cannot(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    context = device()
    page = context.new_page()
    page.clock.install()
    page.route("**/inbox/events*", lambda route: route.fulfill(status=204))
    page.goto(f"{world.site.url}/inbox")
    world.pages.source.put(PERMISSION.model_copy(update={"handle": "a8", "summary": "bash make install"}))
    page.clock.run_for(30_000)
    expect(page.get_by_role("link", name="make install")).to_be_visible()
    page.route("**/inbox/now", lambda route: route.abort())
    page.clock.run_for(30_000)
    expect(page.get_by_role("status").filter(has_text="No connection")).to_be_visible()
    page.unroute("**/inbox/now")
    page.clock.run_for(30_000)
    expect(page.get_by_text("No connection")).to_be_hidden()
    page.unroute("**/inbox/events*")
    page.clock.run_for(30_000)
    eventually(lambda: world.pages.source.streams == 1, "a stream")
    del world.pages.door.visitors["session-of-ann"]
    page.clock.run_for(30_000)
    expect(page.get_by_text("Log in")).to_be_visible()


def test_a_page_that_lost_its_place_asks_until_it_is_looked_at_again(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    context = device()
    first = context.new_page()
    first.clock.install()
    first.goto(f"{world.site.url}/inbox")
    eventually(lambda: world.pages.source.streams == 1, "a stream")
    with first.expect_response("**/inbox/now"):
        for _ in range(MAX_STREAMS):
            context.new_page().goto(f"{world.site.url}/inbox")
    assert world.pages.source.streams == MAX_STREAMS
    world.pages.source.put(PERMISSION.model_copy(update={"handle": "a8", "summary": "bash make install"}))
    expect(first.get_by_role("link", name="make install")).to_be_hidden()
    first.clock.run_for(30_000)
    expect(first.get_by_role("link", name="make install")).to_be_visible()
    assert world.pages.source.streams == MAX_STREAMS


def test_a_page_without_a_script_comes_anew_by_itself(
    world: World, device: Callable[..., BrowserContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "REFRESH_SECONDS", 1)
    page = device(java_script_enabled=False).new_page()
    page.goto(f"{world.site.url}/inbox")
    world.pages.source.put(PERMISSION.model_copy(update={"handle": "a8", "summary": "bash make install"}))
    expect(page.get_by_role("link", name="make install")).to_be_visible()


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
