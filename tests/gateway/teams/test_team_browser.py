"""Consent before a login at a provider in a real Chromium: to the provider, and back to the chat service."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from opencode_gateway.oauth.sessions import list_sessions
from support.authorization import answer_of
from support.browser import CONTRASTS, DESKTOP, PHONE, HttpsSite, chromium, fits, screenshot

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page
    from starlette.requests import Request

    from support.fake_identity_provider import FakeIdentityProvider
    from support.team_gateway import Make, TeamGateway

_SECONDS = 30.0
SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP},
    "phone": {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True, "has_touch": True},
}


class World:
    """A gateway in a thread of its own, and a chat service whose callback says that it was reached."""

    def __init__(self, running: TeamGateway, chat: HttpsSite, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.gateway = running
        self.chat = chat
        self._run = run

    def asking(self, client_name: str = "Claude") -> str:
        """Return the address to which a new client sends its person."""
        callback = f"{self.chat.url}/callback"
        self.gateway.open_window()
        answer = self._run(self.gateway.register(client_name=client_name, redirect_uris=[callback]))
        return self.gateway.asking(answer.json()["client_id"], redirect_uri=callback)

    def consented_elsewhere(self) -> str:
        """Let another browser consent; return to where the provider sends it."""
        callback = f"{self.gateway.url}/auth/callback"
        sent = self._run(self.gateway.visit(self.asking(), until=callback))
        return str(sent.headers["location"])


@contextmanager
def _in_a_thread() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(_SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _callback(request: Request) -> HTMLResponse:
    return HTMLResponse("<h1>Connected</h1>")


@pytest.fixture
def world(gateway: Make, tls: tuple[Path, Path]) -> Iterator[World]:
    chat = HttpsSite("localhost", tls)
    chat.app = Starlette(routes=[Route("/callback", _callback)])
    running = gateway(clients={"redirect_uris": [f"{chat.url}/callback"]})
    with chat, _in_a_thread() as run:
        run(running.__aenter__())
        try:
            yield World(running, chat, run)
        finally:
            run(running.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def device(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Make a new device, with nothing in it."""
    made: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:
        options.setdefault("viewport", DESKTOP)
        made.append(browser.new_context(ignore_https_errors=True, locale="en", **options))
        return made[-1]

    yield make
    for context in made:
        context.close()


def answer(page: Page, world: World) -> dict[str, str]:
    """Return what the client was sent."""
    expect(page.get_by_role("heading")).to_have_text("Connected")
    assert page.url.startswith(world.chat.url)
    return answer_of(page.url)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_from_consent_to_the_provider_and_back_to_the_chat_service(
    world: World, device: Callable[..., BrowserContext], size: str, scheme: str
) -> None:
    page = device(**SIZES[size], color_scheme=scheme).new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))

    page.goto(world.asking())

    expect(page.get_by_role("heading")).to_have_text("Allow Claude to use your OpenCode?")
    expect(page.get_by_text(world.chat.url.removeprefix("https://"), exact=True)).to_be_visible()
    expect(page.get_by_text("a name that it chose itself: it proves nothing")).to_be_visible()
    fits(page)
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate("scrollY") == 0, "what is asked is seen first"
    screenshot(page, f"team-consent-{size}-{scheme}")
    page.get_by_role("button", name="Allow", exact=True).click()
    assert answer(page, world).keys() == {"code", "state", "iss"}
    assert [problem for problem in problems if "Content Security Policy" in problem] == []


def test_by_keyboard_alone_and_enter_is_never_yes(
    world: World, device: Callable[..., BrowserContext], provider: FakeIdentityProvider
) -> None:
    page = device().new_page()
    page.goto(world.asking())
    expect(page.get_by_role("heading")).to_be_focused()
    page.keyboard.press("Enter")
    for control in (*page.get_by_role("checkbox").all(), page.get_by_role("button", name="Do not allow")):
        page.keyboard.press("Tab")
        expect(control).to_be_focused()
    page.get_by_role("checkbox").first.focus()
    page.keyboard.press("Enter")
    assert answer(page, world) == {"error": "access_denied", "state": "st&te", "iss": world.gateway.url}
    assert provider.asked == []


def test_without_javascript_a_person_leaves_something_out(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    page = device(java_script_enabled=False, **SIZES["phone"]).new_page()
    page.goto(world.asking())
    page.get_by_label("send agents tasks").uncheck()
    page.get_by_label("answer what agents ask").uncheck()
    page.get_by_role("button", name="Allow", exact=True).click()
    assert "code" in answer(page, world)
    [session] = list_sessions(world.gateway.store)
    assert session.capabilities == ("observe",)


def test_who_allows_nothing_is_asked_again(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device(**SIZES["phone"]).new_page()
    page.goto(world.asking("W" * 80))
    for box in page.get_by_role("checkbox").all():
        box.uncheck()
    page.get_by_role("button", name="Allow", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Tick at least one thing")
    fits(page)
    screenshot(page, "team-consent-nothing-phone")
    page.get_by_role("button", name="Allow", exact=True).click()
    assert "code" in answer(page, world)


def test_a_login_that_another_browser_began_is_refused_in_plain_words(
    world: World, device: Callable[..., BrowserContext], provider: FakeIdentityProvider
) -> None:
    page = device(**SIZES["phone"]).new_page()

    page.goto(world.consented_elsewhere())

    expect(page.get_by_role("heading")).to_have_text("This login cannot go on")
    fits(page)
    screenshot(page, "team-refused-phone")
    assert provider.called == []
    assert list_sessions(world.gateway.store) == []
