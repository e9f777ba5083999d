"""Pages over a scripted server, and their visitors: a browser without a screen, and a real Chromium over https."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from support.gateway.browser import DESKTOP, HttpsSite, certificate, chromium, trusting
from support.pages.fake_pages import EDIT, PERMISSION, QUESTION, FakePages
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext

RELAY = "relay.example.org"
SITE = f"https://{RELAY}"
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}


@pytest.fixture
def pages() -> FakePages:
    return FakePages(PERMISSION, EDIT, QUESTION)


@pytest.fixture
async def http(pages: FakePages) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(pages.app),
        base_url=SITE,
        cookies={"session": "session-of-ann"},
        headers={"Sec-Fetch-Site": "same-origin"},
    ) as client:
        yield client


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
