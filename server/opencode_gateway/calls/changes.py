"""When what the pages show may be another: told by the OpenCode server's journal, and looked after every few seconds.

The journal has what happened; what is merely so now, as a turn that runs, is seen by looking.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from opencode_common.database import DatabaseError
from opencode_notify.reading import read_journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BELOW_SECONDS: Final = 5.0
"""How often is looked where the journal tells as well."""
ALONE_SECONDS: Final = 2.0
"""And where nobody says where it is."""

_log = logging.getLogger(__name__)


class Changes:
    """Wakes all who look; `state_dir` is where the journal is, if that is known."""

    def __init__(self, state_dir: Path | None) -> None:
        self._state_dir = state_dir
        self._looking: set[asyncio.Event] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch meanwhile."""
        task = asyncio.create_task(self._watch(), name="changes")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    @asynccontextmanager
    async def seen(self) -> AsyncIterator[AsyncIterator[None]]:
        """Give what yields after each change; several in quick succession, or while nobody asked, are one."""
        news = asyncio.Event()
        self._looking.add(news)

        async def each() -> AsyncIterator[None]:
            while True:
                await news.wait()
                news.clear()
                yield

        try:
            yield each()
        finally:
            self._looking.remove(news)

    async def _watch(self) -> None:
        if self._state_dir is not None:
            try:
                await self._watch_journal(self._state_dir)
            except (OSError, DatabaseError) as error:
                _log.warning(
                    "the journal in %s cannot be watched, pages look by themselves: %s", self._state_dir, error
                )
        while True:
            await asyncio.sleep(ALONE_SECONDS)
            self._wake()

    async def _watch_journal(self, state_dir: Path) -> None:
        journal = read_journal(state_dir)
        async with journal.watching():
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(BELOW_SECONDS):
                        await journal.changed()
                self._wake()

    def _wake(self) -> None:
        for news in self._looking:
            news.set()
