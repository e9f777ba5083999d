"""Pages over a scripted server, and a visitor's browser without a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from support.fake_pages import EDIT, PERMISSION, QUESTION, FakePages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SITE = "https://relay.example.org"


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
