"""A recorded fleet over scripted agents, with a face over it: one copy of the server without its process."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp_types import TextContent

from opencode_fleet.drive import Driver
from opencode_fleet.recorder import Recorder
from opencode_journal.journal import Journal
from opencode_journal.leader import Leader
from opencode_mcp.face import Face
from support.fake_agent import fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mcp_types import CallToolResult

    from opencode_fleet.fleet import Fleet
    from opencode_journal.entries import Entry
    from support.fake_agent import FakeAgent
    from support.fake_transport import FakeTransport


@dataclass(frozen=True)
class FakeRelay:
    """One copy of the server."""

    fleet: Fleet
    transport: FakeTransport
    journal: Journal
    leader: Leader
    recorder: Recorder
    face: Face

    def entries(self, *kinds: str) -> list[Entry]:
        """Return what the journal has, of these kinds or all."""
        return self.journal.latest(1_000, kinds or None)

    def told(self, *kinds: str) -> list[tuple[str, str]]:
        """Return the kinds and sessions of what the journal has, of these kinds or all."""
        return [(entry.kind, entry.session) for entry in self.entries(*kinds)]


async def move(relay: FakeRelay, name: str, machine: str) -> None:
    """Have an instance register anew, from a machine of its own."""
    relay.transport.announce(name, "http://127.0.0.1:9", client=machine)

    def is_there() -> bool:
        found = [instance for instance in relay.fleet.all_instances() if instance.name == name]
        return any(instance.endpoint.client == machine and instance.connected.is_set() for instance in found)

    await eventually_async(is_there, f"{name} on {machine}")


def structured(result: CallToolResult) -> dict[str, Any]:
    """Return what programs get of a tool's result."""
    return result.structured_content or {}


def text_of(result: CallToolResult) -> str:
    """Return what people get of a tool's result."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


@asynccontextmanager
async def fake_relay(
    state_dir: Path | None, *, lost_after: float = 3600.0, **agents: FakeAgent
) -> AsyncIterator[FakeRelay]:
    """Run a copy over `agents`, each registered under its name; several may share agents and directory.

    `lost_after`: seconds after which an instance without a connection counts as away.
    """
    leader = Leader(state_dir)
    journal = Journal(state_dir, leader=leader)
    async with journal.watching(), leader.standing(), fake_fleet(**agents) as (fleet, transport):
        recorder = Recorder(fleet, journal, leader, lost_after=lost_after)
        async with recorder.running():
            driver = Driver(fleet, 30, decisions=recorder.decisions)
            face = Face(fleet, driver, journal)
            yield FakeRelay(fleet, transport, journal, leader, recorder, face)
