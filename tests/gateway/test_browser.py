"""The login and consent pages in a real Chromium: over https, from a chat service on another site and back to it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pyotp
import pytest
from playwright.sync_api import expect

from opencode_gateway.oauth import enrolment
from opencode_gateway.sign_in import throttle as budgets
from opencode_gateway.sign_in.one_time_codes import new_secret
from opencode_gateway.sign_in.throttle import window_code
from support.gateway.authorization import answer_of
from support.gateway.browser import CONTRASTS, DESKTOP, PHONE, chromium, fits, screenshot
from support.gateway.browser_world import CHAT, PASSWORD, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


@pytest.fixture
def device(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Make a new device, with nothing in it."""
    with ExitStack() as stack:

        def make(**options: Any) -> BrowserContext:
            options.setdefault("viewport", DESKTOP)
            return stack.enter_context(browser.new_context(ignore_https_errors=True, locale="en", **options))

        yield make


def log_in(page: Page, password: str = PASSWORD) -> None:
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def is_at_consent(page: Page) -> None:
    expect(page.get_by_role("heading")).to_have_text("Allow Claude to use your OpenCode?")


def answer(page: Page, world: World) -> dict[str, str]:
    """Return what the client was sent."""
    expect(page.get_by_role("heading")).to_have_text("Connected")
    assert page.url.startswith(world.app.url)
    return answer_of(page.url)


SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP},
    "phone": {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True, "has_touch": True},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_from_a_chat_service_through_login_and_consent_and_back(
    world: World, device: Callable[..., BrowserContext], size: str, scheme: str
) -> None:
    page = device(**SIZES[size], color_scheme=scheme).new_page()
    problems: list[str] = []
    page.on(
        "console", lambda message: problems.append(message.text) if message.type in {"error", "warning"} else None
    )
    world.users.set_totp("ann", secret := new_secret())
    page.goto(f"{world.chat.url}/?{urlencode({'to': world.login_url()})}")
    page.locator("#connect").click()
    expect(page.get_by_label("Name")).to_be_focused()
    fits(page)
    screenshot(page, f"login-{size}-{scheme}")
    page.get_by_label("One-time code").fill("000000")
    log_in(page, "a wrong password")
    expect(page.get_by_role("alert")).to_contain_text("That is not right")
    expect(page.get_by_label("Password")).to_be_focused()
    fits(page)
    screenshot(page, f"wrong-{size}-{scheme}")
    page.get_by_label("One-time code").fill(pyotp.TOTP(secret).at(time.time()))
    log_in(page)
    is_at_consent(page)
    expect(page.get_by_text(CHAT, exact=True)).to_be_visible()
    fits(page)
    assert page.evaluate("scrollY") == 0, "what is asked is seen first"
    expect(page.get_by_text("Allow it only if you have just connected")).to_be_in_viewport(ratio=1)
    expect(page.get_by_role("button", name="Allow", exact=True)).to_be_in_viewport(ratio=1)
    screenshot(page, f"consent-{size}-{scheme}")
    page.get_by_role("button", name="Allow", exact=True).click()
    assert answer(page, world).keys() == {"code", "state", "iss"}
    assert [problem for problem in problems if "Content Security Policy" in problem] == []


def test_a_client_of_unknown_name_and_a_very_long_one_are_shown_as_such(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    page = device(**SIZES["phone"]).new_page()
    world.client_id = "c0ffee"
    page.goto(world.login_url("W" * 80, document=False))
    fits(page)
    log_in(page)
    expect(page.get_by_text("a name that it chose itself: it proves nothing")).to_be_visible()
    fits(page)
    screenshot(page, "consent-phone-long")


def test_by_keyboard_alone(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device().new_page()
    page.goto(world.login_url())
    # Focus comes with the first frame, which a person sees and a test must wait for.
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("ann")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Password")).to_be_focused()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    is_at_consent(page)
    for control in (*page.get_by_role("checkbox").all(), page.get_by_role("button", name="Do not allow")):
        page.keyboard.press("Tab")
        expect(control).to_be_focused()
    screenshot(page, "consent-focus")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Allow", exact=True)).to_be_focused()
    page.keyboard.press("Space")
    assert "code" in answer(page, world)


def test_enter_is_never_yes(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device().new_page()
    page.goto(world.login_url())
    log_in(page)
    is_at_consent(page)
    page.keyboard.press("Enter")
    page.get_by_role("checkbox").first.focus()
    page.keyboard.press("Enter")
    assert answer(page, world)["error"] == "access_denied"
    with world.store.transaction(write=False) as db:
        assert db.execute("SELECT count(*) FROM codes").fetchone()[0] == 0


def test_without_javascript(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device(java_script_enabled=False).new_page()
    page.goto(world.login_url())
    log_in(page)
    is_at_consent(page)
    page.get_by_label("send agents tasks").uncheck()
    page.get_by_role("button", name="Allow", exact=True).click()
    given = answer(page, world)
    with world.store.transaction(write=False) as db:
        assert [row["capabilities"] for row in db.execute("SELECT capabilities FROM codes")] == ["observe approve"]
    assert given["state"] == "the state"


def test_who_does_not_allow_it_sends_the_client_access_denied(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    page = device().new_page()
    page.goto(world.login_url())
    log_in(page)
    page.get_by_role("button", name="Do not allow").click()
    assert answer(page, world)["error"] == "access_denied"


def test_a_chat_service_that_opens_a_popup_hears_from_it(world: World, device: Callable[..., BrowserContext]) -> None:
    context = device()
    context.add_cookies([{"name": "tell", "value": "me", "url": world.chat.url}])
    chat = context.new_page()
    chat.goto(f"{world.chat.url}/?{urlencode({'to': world.login_url()})}")
    with context.expect_page() as opened:
        chat.locator("#popup").click()
    log_in(opened.value)
    is_at_consent(opened.value)
    opened.value.get_by_role("button", name="Allow", exact=True).click()
    expect(chat).to_have_title("told")


def test_the_way_from_a_chat_service_brings_the_device_cookie_and_a_form_of_another_site_does_not(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    page = device().new_page()
    page.goto(world.login_url())
    log_in(page)
    is_at_consent(page)

    page.goto(f"{world.chat.url}/?{urlencode({'to': f'{world.relay.url}/authorize?client_id=x'})}")
    page.locator("#connect").click()
    expect(page.get_by_role("heading")).to_have_text("Not connected")
    world.evil_page = (
        f'<form method="post" action="{world.relay.url}/authorize"><input name="client_id" value="x"></form>'
        "<script>document.forms[0].submit()</script>"
    )
    page.goto(world.evil.url)
    page.wait_for_url(f"{world.relay.url}/authorize")

    # The login is of this browser, too: see `pages.browser_cookies`.
    assert world.cookies == [{"__Host-browser", "__Host-login", "__Host-device"}, set()]


def test_the_pages_are_not_shown_in_a_frame(world: World, device: Callable[..., BrowserContext]) -> None:
    context = device()
    page = context.new_page()
    page.goto(world.login_url())
    log_in(page)
    is_at_consent(page)
    for framed in (world.login_url(), page.url):
        world.evil_page = f'<iframe src="{framed}" width="600" height="600"></iframe>'
        attack = context.new_page()
        with attack.expect_response(lambda response: response.url.startswith(world.relay.url)):
            attack.goto(world.evil.url)
        frame = attack.frames[1]
        frame.wait_for_load_state()
        assert frame.get_by_role("button").count() == 0
        assert frame.get_by_role("heading", name="Claude").count() == 0


@pytest.mark.parametrize("opaque", [False, True], ids=["its own origin", "no origin"])
def test_a_form_of_another_site_is_refused_though_the_person_has_just_logged_in(
    world: World, device: Callable[..., BrowserContext], *, opaque: bool
) -> None:
    context = device()
    page = context.new_page()
    page.goto(world.login_url())
    log_in(page)
    is_at_consent(page)
    hidden = {name: page.locator(f"input[name={name}]").get_attribute("value") for name in ("request", "token")} | {
        "decision": "allow",
        "capability-drive": "yes",
    }
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in hidden.items())
    # With all that the form has, which no attacker knows: what the browser itself adds and leaves out is enough.
    form = f'<form method="post" action="{world.relay.url}/consent">{inputs}<button>Win</button></form>'
    policy = '<meta name="referrer" content="no-referrer">' if opaque else ""
    world.evil_page = policy + form
    attack = context.new_page()
    attack.goto(world.evil.url)
    with attack.expect_response(f"{world.relay.url}/consent") as refused:
        attack.get_by_role("button").click()
    assert refused.value.status == 403
    with world.store.transaction(write=False) as db:
        assert db.execute("SELECT count(*) FROM codes").fetchone()[0] == 0


def test_a_known_device_and_the_code_of_the_window_pass_a_storm(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    known, fresh = device(), device(**SIZES["phone"])
    page = known.new_page()
    page.goto(world.login_url())
    log_in(page)
    is_at_consent(page)
    storm = fresh.new_page()
    storm.goto(world.login_url())
    for _ in range(budgets.ADDRESS.attempts):
        log_in(storm, "a guess")
        expect(storm.get_by_role("alert")).to_contain_text("not right")
    log_in(storm)
    expect(storm.get_by_role("alert")).to_contain_text("Too many attempts")
    fits(storm)
    screenshot(storm, "throttled-phone")

    page.goto(world.login_url())
    log_in(page)
    is_at_consent(page)

    enrolment.open_window(world.store, minutes=10, now=time.time())
    opened_at = world.provider.clients.window()
    assert opened_at is not None
    storm.get_by_label("Code from the relay").fill(window_code(world.key, opened_at).lower())
    log_in(storm)
    is_at_consent(storm)


def test_problems_are_pages_that_say_what_to_do(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device(**SIZES["phone"]).new_page()
    page.goto(f"{world.relay.url}/login?request=old")
    expect(page.get_by_text("Start again from your chat client")).to_be_visible()
    fits(page)
    screenshot(page, "problem-phone")
    login = world.login_url()
    world.users.remove("ann")
    page.goto(login)
    expect(page.get_by_text("sudo opencode-gateway users add NAME")).to_be_visible()
    fits(page)
    screenshot(page, "no-users-phone")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible(world: World, device: Callable[..., BrowserContext], scheme: str) -> None:
    page = device(color_scheme=scheme).new_page()
    page.goto(world.login_url())
    log_in(page, "a wrong password")
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.evaluate(CONTRASTS) == []
    log_in(page)
    is_at_consent(page)
    assert page.evaluate(CONTRASTS) == []
