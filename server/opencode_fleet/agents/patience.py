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
BEHIND_OTHERS = 3
"""How many times its limit an answer may take of which nothing comes, while others of the same agent do."""


@dataclass(eq=False, slots=True)
class _Wait:
    timer: asyncio.Timeout
    seconds: float
    latest: float
    """When it ends although others arrive, by the loop's clock."""

    def extend(self, size: int, *, is_own: bool) -> None:
        ends = self.timer.when()
        if ends is None or self.timer.expired():
            return
        now = asyncio.get_running_loop().time()
        longer = min(ends + size / SLOWEST, now + self.seconds)
        self.timer.reschedule(max(ends, longer if is_own else min(longer, self.latest)))


class Patience:
    """All that is being waited for of one agent."""

    def __init__(self) -> None:
        self._waits: set[_Wait] = set()

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[Callable[[int], None]]:
        """Wait for at most `seconds` of silence; what it gives is told how many bytes came, each time.

        Raises:
            TimeoutError: it was silent for so long.
        """
        async with asyncio.timeout(seconds) as timer:
            wait = _Wait(timer, seconds, asyncio.get_running_loop().time() + BEHIND_OTHERS * seconds)

            def came(size: int) -> None:
                for each in self._waits:
                    each.extend(size, is_own=each is wait)

            self._waits.add(wait)
            try:
                yield came
            finally:
                self._waits.discard(wait)
