"""Turns at something scarce: so many at once, and fewer of them for one source, which cannot take them all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class FetchPlaces:
    """The turns.

    Args:
        all_at_once: for everybody together.
        of_one: of these for one source.
    """

    def __init__(self, all_at_once: int, of_one: int) -> None:
        self._all = asyncio.Semaphore(all_at_once)
        self._of_one = of_one
        self._by_source: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """Of sources that have a place or wait for one: they alone are remembered."""

    @asynccontextmanager
    async def one(self, source: str) -> AsyncIterator[None]:
        """Wait for a place, first among those of this source, and have it."""
        own = self._by_source.setdefault(source, asyncio.Semaphore(self._of_one))
        async with own, self._all:
            yield
