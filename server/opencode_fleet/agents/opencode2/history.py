"""A session's entries as OpenCode 2 lists them, in pages that fit the line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_fleet.agents.http import LARGE_BODY, TooLarge
from opencode_fleet.agents.opencode2 import wire
from opencode_fleet.agents.pages import PageSize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from opencode_fleet.agents.http import HttpAnswer
    from opencode_fleet.agents.opencode2.records import Calls

MAX_PAGE = 200
"""What OpenCode 2 lists at once, at most."""
MAX_PAGES = 60
MAX_CURSOR = 2_000
MAX_BYTES = 4 * LARGE_BODY
"""Of all pages together."""


class History:
    """Lists entries of one agent's sessions."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._page_size = PageSize(MAX_PAGE)

    async def newest(
        self, session_id: str, most: int, arrived: Callable[[int], None] | None = None
    ) -> AsyncIterator[list[wire.Message]]:
        """Yield a session's entries, newest first: all so far with each page, until there are no more, or `most`.

        It ends too before an entry that is larger than an answer may be.

        `arrived` is told of bytes as they come. Raises `InstanceError`.
        """
        entries: list[wire.Message] = []
        told = size = 0
        cursor = ""
        for _ in range(MAX_PAGES):
            try:
                page = await self._page(session_id, most - told, cursor, arrived)
            except TooLarge:
                if not entries:
                    raise
                break  # one by itself, and none before it can be had
            listed = wire.member(page.value, "data")
            known = {entry.id for entry in entries}
            entries += [e for e in self._calls.client.many(wire.Message, listed) if e.id not in known]
            told, size = told + len(listed), size + page.size
            yield entries
            following = cursor_of(page.value)
            if not listed or told >= most or size >= MAX_BYTES or following in {"", cursor}:
                break
            cursor = following

    async def _page(
        self, session_id: str, wanted: int, cursor: str, arrived: Callable[[int], None] | None
    ) -> HttpAnswer:
        """Fetch the newest entries before `cursor`: as many of those that are wanted as come in good time."""
        while True:
            count = self._page_size.of(wanted)
            params = {"limit": str(count)} | ({"cursor": cursor} if cursor else {})
            try:
                page = await self._calls.page(
                    "session.message.list", session_id, params=params, limit=LARGE_BODY, arrived=arrived
                )
            except TooLarge:
                if count <= 1:
                    raise
                self._page_size.was_too_large(count)
            else:
                listed = wire.member(page.value, "data")
                self._page_size.took(len(listed) if isinstance(listed, list) else 0, page.seconds)
                return page


def cursor_of(answer: object) -> str:
    """Return what leads to the older entries of a list; empty where there are none."""
    cursor = wire.member(wire.member(answer, "cursor"), "next")
    return cursor if isinstance(cursor, str) and len(cursor) <= MAX_CURSOR else ""
