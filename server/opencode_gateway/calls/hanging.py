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


class Pulse:
    """When to ask a child the next time, and what has been heard of it."""

    def __init__(self) -> None:
        self._used_at = time.monotonic()
        self._used = asyncio.Event()
        self._heard = False

    def used(self) -> None:
        """Take note that a request is being made to the child."""
        self._used_at = time.monotonic()
        self._used.set()

    def heard(self) -> None:
        """Take note that the child has answered a request, whichever."""
        self._heard = True

    async def next(self) -> None:
        """Wait until it is to be asked."""
        if time.monotonic() - self._used_at > IN_USE_SECONDS:
            self._used.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._used.wait()
        await asyncio.sleep(BEAT_SECONDS)

    async def beats(self, session: ClientSession, seconds: float) -> bool:
        """Ask the other side whether it is there; tell whether it is heard of, or known to have ended, in time."""
        asked = asyncio.create_task(_asked(session))
        silent = 0
        try:
            # A jump of the clock is one tick.
            while silent < max(1, round(seconds / _TICK_SECONDS)):
                self._heard = False
                await asyncio.wait({asked}, timeout=_TICK_SECONDS)
                if asked.done():
                    return True
                # Where many calls run, the question waits for its turn.
                silent = 0 if self._heard else silent + 1
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
