"""A recorded fleet over scripted agents, with a face over it: one copy of the server without its process."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp_types import TextContent

from opencode_fleet.delivery import Deliverer
from opencode_fleet.drive import Driver
from opencode_fleet.outbox import Outbox
from opencode_fleet.recorder import Recorder
from opencode_journal.journal import Journal
from opencode_journal.leader import Leader
from opencode_mcp.face import Face
from support.opencodes.fake_agent import fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from mcp_types import CallToolResult

    from opencode_fleet.fleet import Fleet
    from opencode_journal.entries import Entry
    from support.fleet.fake_transport import FakeTransport
    from support.opencodes.fake_agent import FakeAgent


@dataclass(frozen=True)
class FakeRelay:
    """One copy of the server."""

    fleet: Fleet
    transport: FakeTransport
    journal: Journal
    leader: Leader
    recorder: Recorder
    face: Face
    outbox: Outbox
    deliverer: Deliverer

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
    async with fake_copy(state_dir, agents, lost_after=lost_after) as relay:
        yield relay


@asynccontextmanager
async def fake_copy(
    state_dir: Path | None,
    agents: dict[str, FakeAgent],
    *,
    lost_after: float = 3600.0,
    now: Callable[[], float] = time.time,
    may_lead: bool = True,
) -> AsyncIterator[FakeRelay]:
    """Do the same. `now`: the outbox's clock. `may_lead`: whether it stands for election."""
    leader = Leader(state_dir)
    journal = Journal(state_dir, leader=leader)
    standing = leader.standing() if may_lead else nullcontext()
    async with journal.watching(), standing, fake_fleet(**agents) as (fleet, transport):
        outbox = Outbox(journal, now=now)
        recorder = Recorder(fleet, journal, leader, carried=outbox.carried, lost_after=lost_after)
        driver = Driver(fleet, 30, decisions=recorder.decisions, journal=journal)
        deliverer = Deliverer(fleet, driver.sender, outbox, journal, leader)
        async with recorder.running(), deliverer.running():
            face = Face(fleet, driver, journal, outbox=outbox)
            yield FakeRelay(fleet, transport, journal, leader, recorder, face, outbox, deliverer)
