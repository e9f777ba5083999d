"""Connections that register nothing: what `status` and `doctor` ask the relay.

They have one try, so they wait at once for as long as a launcher would in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opencode_connected.line.connection import MOST_BEGIN_SECONDS, LineConnection
from opencode_connected.line.errors import ForwardRefused
from opencode_connected.line.ports import PortChoice

if TYPE_CHECKING:
    from opencode_connected.line.command import LineSettings
    from opencode_connected.line.protocol import Health


@dataclass(frozen=True)
class ProbeResult:
    """A tunnel that was tried. Whatever goes wrong before that is raised, with the hop where it broke."""

    port: int
    """The relay's."""
    health: Health
    """What came back through the tunnel; `unverified` if the relay has nothing to ask with."""
    agent: str
    """What answers at the relay's end: `sh`, or a provisioned relay's agent."""
    client: str | None
    """The name that a provisioned relay knows this machine by."""
    startup_output: str | None
    """The last words that the account's shell printed before our command ran, if it did."""


async def query(settings: LineSettings) -> list[dict[str, object]]:
    """Return this account's registrations as the relay has them: another machine's data, unvalidated.

    Raises:
        RelayRefused: the registry directory cannot be used.
        LineError: there is no connection.

    """
    async with LineConnection(settings, forward=None, begin_seconds=MOST_BEGIN_SECONDS) as connection:
        await connection.open()
        return await connection.query()


async def probe(settings: LineSettings) -> ProbeResult:
    """Lead a tunnel to `settings.local_port` and try it.

    Raises:
        ForwardRefused: the relay does not listen for us.
        RelayRefused: the port listens beyond the relay's loopback, or may not be used.
        LineError: there is no connection.

    """
    ports = PortChoice(settings.ports)
    while True:
        async with LineConnection(settings, forward=ports.port, begin_seconds=MOST_BEGIN_SECONDS) as connection:
            try:
                await connection.open()
            except ForwardRefused as refused:
                if ports.refused(refused):
                    continue
                raise
            health = await connection.probe()
            return ProbeResult(
                connection.port, health, connection.agent, connection.client, connection.startup_output
            )
