"""Streams that pages keep open: few at once for a person, and none longer than it is wanted."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MAX_STREAMS: Final = 4
"""For one login, on all devices: a page whose stream was ended asks from time to time."""


class StreamPlace:
    """One stream's."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self.is_ended = False
        """Whether a newer stream has its place by now, or there are no changes to follow any more."""

    def end(self) -> None:
        """Tell the stream to end."""
        self.is_ended = True
        self._woken.set()

    @asynccontextmanager
    async def following(self, changes: AsyncIterator[None]) -> AsyncIterator[None]:
        """Let changes wake the stream meanwhile; those that come while it is busy are one."""

        async def follow() -> None:
            try:
                async for _ in changes:
                    self._woken.set()
            finally:
                self.end()

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def wait(self, seconds: float) -> None:
        """Return as soon as something changed or the stream is to end, and after `seconds` in any case."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()


class Streams:
    """Gives places away, and takes the oldest back where there are too many."""

    def __init__(self) -> None:
        self._places: dict[str, list[StreamPlace]] = {}

    @contextmanager
    def place(self, login: str) -> Iterator[StreamPlace]:
        """Give a place for as long as it is used."""
        places = self._places.setdefault(login, [])
        place = StreamPlace()
        places.append(place)
        if len(places) > MAX_STREAMS:
            places.pop(0).end()
        try:
            yield place
        finally:
            if place in places:
                places.remove(place)
            if not places and self._places.get(login) is places:
                del self._places[login]
