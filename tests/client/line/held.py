"""A keeper at work, and what it told."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from client.line.conftest import registration
from opencode_connected.line.keeper import LineKeeper
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_connected.line.command import LineSettings
    from opencode_connected.line.state import LineEvent
    from support.opencodes.fake_health import FakeHealth


class Line:
    """A keeper and what it told."""

    def __init__(self, settings: LineSettings, opencode: FakeHealth) -> None:
        self.opencode = opencode
        self.events: list[LineEvent] = []
        self.keeper = LineKeeper(settings, self.events.append, opencode.healthy)

    async def register(self, name: str = "laptop-api", *, name_is_default: bool = False) -> str:
        return await self.keeper.register(registration(self.opencode, name), name_is_default=name_is_default)

    async def until(self, phase: str, *, reconnects: int = 0, within: float = 15.0) -> None:
        await eventually_async(
            lambda: self.keeper.state.phase == phase and self.keeper.state.reconnects >= reconnects,
            f"phase {phase} after {reconnects} reconnects",
            within=within,
        )

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def ssh(self) -> int:
        connection = self.keeper._connection
        assert connection is not None
        assert connection._transport is not None
        return connection._transport.get_pid()


@contextlib.asynccontextmanager
async def line(settings: LineSettings, opencode: FakeHealth) -> AsyncIterator[Line]:
    held = Line(settings, opencode)
    await held.keeper.start()
    try:
        yield held
    finally:
        await held.keeper.close()
