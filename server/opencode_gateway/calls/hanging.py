"""Whether a child still answers: asked again and again, since a process that hangs closes no connection.

What is counted is time in which the gateway itself ran. So a host that was suspended, or a container that was paused,
is not laid at the child's door.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mcp.shared.exceptions import MCPError
from mcp_types import REQUEST_TIMEOUT

if TYPE_CHECKING:
    from mcp import ClientSession

BEAT_SECONDS: Final = 2.0
"""Between two questions while somebody uses the child."""
IDLE_SECONDS: Final = 30.0
"""And while nobody does: some servers log each question."""
IN_USE_SECONDS: Final = 60.0
"""From one request to the next a person in a conversation takes so long."""
_TICK_SECONDS: Final = 0.5


class Beat:
    """When to ask a child the next time."""

    def __init__(self) -> None:
        self._used_at = time.monotonic()
        self._used = asyncio.Event()

    def used(self) -> None:
        """Take note that a request is being made to the child."""
        self._used_at = time.monotonic()
        self._used.set()

    async def next(self) -> None:
        """Wait for it."""
        if time.monotonic() - self._used_at > IN_USE_SECONDS:
            self._used.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._used.wait()
        await asyncio.sleep(BEAT_SECONDS)


async def answers(session: ClientSession, seconds: float) -> bool:
    """Tell whether the other side says within so many seconds that it is there, or is known to have ended."""
    asked = asyncio.create_task(_asked(session))
    try:
        # A jump of the clock is one tick.
        for _ in range(max(1, round(seconds / _TICK_SECONDS))):
            await asyncio.wait({asked}, timeout=_TICK_SECONDS)
            if asked.done():
                return True
        return False
    finally:
        asked.cancel()
        asked.add_done_callback(_looked_at)


async def _asked(session: ClientSession) -> None:
    """Ask what the protocol's own part answers in each era, whatever the tools are doing; return at any answer."""
    modern = session.discover_result is not None and session.protocol_version is not None
    while True:
        try:
            await (session.send_discover(str(session.protocol_version)) if modern else session.send_ping())
        except MCPError as error:
            # The SDK has a limit of its own for the former.
            if error.code == REQUEST_TIMEOUT:
                continue
        return


def _looked_at(asked: asyncio.Task[None]) -> None:
    """Take note of an error that was the answer."""
    if not asked.cancelled():
        asked.exception()
