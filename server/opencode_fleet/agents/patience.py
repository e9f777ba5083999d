"""Time limits that count silence: what goes on arriving, however slowly, is no failure.

All that an agent sends comes through one line, so that what comes of one answer also says why another is late.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SLOWEST = 2_000
"""Bytes a second that count as arriving; what drips more slowly uses its time up."""
LONGEST = 6
"""How many times its limit an answer may take in all, however much of it arrives, if nothing else is said."""
BEHIND_OTHERS = 3
"""How many times its limit an answer may take of which nothing comes, while others of the same agent do."""


@dataclass(eq=False, slots=True)
class _Wait:
    timer: asyncio.Timeout
    seconds: float
    latest: float
    """When it ends although others arrive, by the loop's clock."""
    ends_at: float
    """When it ends although it arrives itself."""

    def extend(self, size: int, *, is_own: bool) -> None:
        ends = self.timer.when()
        if ends is None or self.timer.expired():
            return
        now = asyncio.get_running_loop().time()
        most = self.ends_at if is_own else min(self.latest, self.ends_at)
        self.timer.reschedule(max(ends, min(ends + size / SLOWEST, now + self.seconds, most)))


class Patience:
    """All that is being waited for of one agent."""

    def __init__(self) -> None:
        self._waits: set[_Wait] = set()

    @asynccontextmanager
    async def within(self, seconds: float, most: float | None = None) -> AsyncIterator[Callable[[int], None]]:
        """Wait for at most `seconds` of silence; what it gives is told how many bytes came, each time.

        `most`: seconds that it may take in all, by default `LONGEST` times as many.

        Raises:
            TimeoutError: it was silent for so long, or took longer in all.
        """
        async with asyncio.timeout(seconds) as timer:
            now = asyncio.get_running_loop().time()
            ends_at = now + (LONGEST * seconds if most is None else most)
            wait = _Wait(timer, seconds, now + BEHIND_OTHERS * seconds, ends_at)

            def came(size: int) -> None:
                for each in self._waits:
                    each.extend(size, is_own=each is wait)

            self._waits.add(wait)
            try:
                yield came
            finally:
                self._waits.discard(wait)
