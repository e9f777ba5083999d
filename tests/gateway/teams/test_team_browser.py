"""In a real Chromium: from the chat service to the provider, to our consent page, and back.

Chat service and provider are at another site than the gateway, by whose cookies that matters.
"""

from __future__ import annotations

import asyncio
import html
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from opencode_gateway.oauth.sessions import list_sessions
from support.gateway.authorization import answer_of
from support.gateway.browser import CONTRASTS, DESKTOP, PHONE, HttpsSite, chromium, fits, screenshot

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page
    from starlette.requests import Request

    from support.gateway.fake_identity_provider import FakeIdentityProvider
    from support.gateway.team_gateway import Make, TeamGateway

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
        self.link = ""
        chat.app = Starlette(routes=[Route("/", self._links), Route("/callback", _callback)])

    def arrive(self, page: Page, client_name: str = "Claude") -> None:
        """Come from the chat service by a link."""
        self.link = self.asking(client_name)
        page.goto(self.chat.url)
        page.get_by_role("link").click()

    async def _links(self, request: Request) -> HTMLResponse:
        return HTMLResponse(f'<a href="{html.escape(self.link)}">Connect</a>')

    def asking(self, client_name: str = "Claude") -> str:
        """Return the address to which a new client sends its person."""
        callback = f"{self.chat.url}/callback"
        self.gateway.open_window()
        answer = self._run(self.gateway.register(client_name=client_name, redirect_uris=[callback]))
        return self.gateway.asking(answer.json()["client_id"], redirect_uri=callback)

    def logged_in_elsewhere(self) -> str:
        """Let another browser log in; return to where the provider sends it."""
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
def world(gateway: Make, tls: tuple[Path, Path], provider: FakeIdentityProvider) -> Iterator[World]:
    provider.url = provider.url.replace("localhost", "127.0.0.1")
    chat = HttpsSite("127.0.0.1", tls)
    running = gateway(clients={"redirect_uris": [f"{chat.url}/callback"]})
    with _in_a_thread() as run:
        world = World(running, chat, run)
        run(running.__aenter__())
        try:
            with chat:
                yield world
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
def test_from_the_chat_service_to_the_provider_to_consent_and_back(
    world: World, device: Callable[..., BrowserContext], size: str, scheme: str
) -> None:
    page = device(**SIZES[size], color_scheme=scheme).new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))

    world.arrive(page)

    expect(page.get_by_role("heading")).to_have_text("Allow Claude to use your OpenCode?")
    expect(page.get_by_text(world.chat.url.removeprefix("https://"), exact=True)).to_be_visible()
    expect(page.get_by_text("a name that it chose itself: it proves nothing")).to_be_visible()
    expect(page.get_by_text("ann@example.org", exact=True)).to_be_visible()
    fits(page)
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate("scrollY") == 0, "what is asked is seen first"
    screenshot(page, f"team-consent-{size}-{scheme}")
    page.get_by_role("button", name="Allow", exact=True).click()
    assert answer(page, world).keys() == {"code", "state", "iss"}
    assert [problem for problem in problems if "Content Security Policy" in problem] == []


def test_who_presses_a_button_at_the_provider_comes_back_with_their_cookies(
    world: World, device: Callable[..., BrowserContext], provider: FakeIdentityProvider
) -> None:
    provider.shows_page = True
    page = device(**SIZES["phone"]).new_page()
    world.arrive(page)
    page.get_by_role("link", name="Continue").click()
    page.get_by_role("button", name="Allow", exact=True).click()
    assert "code" in answer(page, world)
    assert len([asked for asked in provider.asked if "response_type" in asked]) == 1, "sent there once"


def test_by_keyboard_alone_and_enter_is_never_yes(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device().new_page()
    world.arrive(page)
    expect(page.get_by_role("heading")).to_be_focused()
    page.keyboard.press("Enter")
    for control in (*page.get_by_role("checkbox").all(), page.get_by_role("button", name="Do not allow")):
        page.keyboard.press("Tab")
        expect(control).to_be_focused()
    page.get_by_role("checkbox").first.focus()
    page.keyboard.press("Enter")
    assert answer(page, world)["error"] == "access_denied"
    assert list_sessions(world.gateway.store) == []


def test_without_javascript_a_person_leaves_something_out(
    world: World, device: Callable[..., BrowserContext]
) -> None:
    page = device(java_script_enabled=False, **SIZES["phone"]).new_page()
    world.arrive(page)
    page.get_by_label("send agents tasks").uncheck()
    page.get_by_label("answer what agents ask").uncheck()
    page.get_by_role("button", name="Allow", exact=True).click()
    assert "code" in answer(page, world)
    assert world.gateway.events[-1].details == {"capabilities": ["observe"]}


def test_who_allows_nothing_is_asked_again(world: World, device: Callable[..., BrowserContext]) -> None:
    page = device(**SIZES["phone"]).new_page()
    world.arrive(page, "W" * 80)
    for box in page.get_by_role("checkbox").all():
        box.uncheck()
    page.get_by_role("button", name="Allow", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Tick at least one thing")
    fits(page)
    screenshot(page, "team-consent-nothing-phone")
    page.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Allow", exact=True).click()
    assert "code" in answer(page, world)


def test_a_login_that_another_browser_began_is_refused_in_plain_words(
    world: World, device: Callable[..., BrowserContext], provider: FakeIdentityProvider
) -> None:
    page = device(**SIZES["phone"]).new_page()

    page.goto(world.logged_in_elsewhere())

    expect(page.get_by_role("heading")).to_have_text("This login cannot go on")
    fits(page)
    screenshot(page, "team-refused-phone")
    assert provider.called == []
    assert list_sessions(world.gateway.store) == []
