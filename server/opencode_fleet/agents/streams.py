"""Event streams (`text/event-stream`) and JSON of agents that are not trusted: bounded in size and pace."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, cast

from pydantic_core import from_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_EVENTS_PER_SECOND = 1000
"""Of one agent; a real one sends some hundred while several sessions write."""
COST_OF_A_GAP = 100
"""In events: after one that was dropped the state is fetched anew."""
MAX_EVENT_BYTES = 2 << 20
"""Bytes of one event; a longer one is dropped, and the state fetched anew."""


def parse_json(content: bytes | str) -> object:
    """Parse JSON; a lone surrogate, which JavaScript makes of an emoji cut in two, becomes a question mark.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        return cast("object", from_json(content))
    except ValueError:
        try:
            repaired = json.dumps(json.loads(content), ensure_ascii=False)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return cast("object", from_json(repaired.encode(errors="replace")))


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[object | None]:
    """Yield the JSON of each event; None where one was too large or no JSON. A flood is slowed down."""
    pace = Pace()
    async for frame in frames(chunks):
        if frame is None:
            await pace.step(COST_OF_A_GAP)
            yield None
            continue
        # All that is left of the format once the frames are bounded.
        data = b"\n".join(line[5:].strip() for line in frame.splitlines() if line.startswith(b"data:"))
        if not data:
            # A comment: a sign of life, and nothing else.
            yield {}
            continue
        try:
            event = parse_json(data)
        except ValueError:
            event = None
        await pace.step(COST_OF_A_GAP if event is None else 1)
        yield event


class Pace:
    """Slows a stream down to `MAX_EVENTS_PER_SECOND`, so that a flood costs the one who makes it, not the others."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._since = self._clock()
        self._count = 0

    async def step(self, cost: int) -> None:
        """Wait until an event of that cost may be taken."""
        self._count += cost
        if self._count < MAX_EVENTS_PER_SECOND:
            return
        await asyncio.sleep(self._since + 1.0 - self._clock())
        self._since, self._count = self._clock(), 0


async def frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """Split an event stream after its blank lines; None is a frame beyond `MAX_EVENT_BYTES`, never held whole."""
    pending = bytearray()
    skipping = False
    async for chunk in chunks:
        # The blank line may be split between two chunks, but need not be sought in what was searched before.
        start = max(0, len(pending) - 1)
        pending += chunk
        while (end := pending.find(b"\n\n", start)) >= 0:
            frame = bytes(pending[: end + 2])
            del pending[: end + 2]
            start = 0
            yield None if skipping or len(frame) > MAX_EVENT_BYTES else frame
            skipping = False
        if len(pending) > MAX_EVENT_BYTES:
            skipping = True
        if skipping:
            del pending[:-1]
