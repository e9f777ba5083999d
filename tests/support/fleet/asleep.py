"""Messages to instances that are away, as tests send, await and find them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opencode_fleet import delivery as delivery_module
from opencode_fleet import posting as posting_module
from opencode_fleet import turn as turn_module
from opencode_fleet.later import Kept
from opencode_fleet.outbox import Draft
from support.fleet.fake_relay import FakeRelay, fake_relay
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from opencode_fleet.files import File
    from opencode_fleet.model import Outcome
    from opencode_journal.entries import Entry
    from support.opencodes.fake_agent import FakeAgent


def look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at once where a person would be left to wait for seconds."""
    monkeypatch.setattr(delivery_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(posting_module, "STORED_WITHIN", 0.02)
    for name in ("LOOK_INTERVAL", "SETTLING", "WAKE_AFTER"):
        monkeypatch.setattr(turn_module, name, 0.1)


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


async def sent(
    relay: FakeRelay, text: str, *files: File, by: str = "ann", session: str = "", agent: str = "", model: str = ""
) -> Outcome | Kept:
    """Send `laptop` a message as `when='asleep'` does."""
    place = await relay.face.later.place("laptop")
    return await relay.face.later.send(
        place, Draft(place.name, text, by, session, agent, model, files=files), ignored
    )


async def kept(relay: FakeRelay, text: str, *files: File, by: str = "ann", **more: str) -> str:
    """Keep a message, and return its handle."""
    result = await sent(relay, text, *files, by=by, **more)
    assert isinstance(result, Kept)
    return result.message.handle


async def leave(relay: FakeRelay, name: str = "laptop") -> None:
    relay.transport.withdraw(name)
    instance = await relay.fleet.find(name)
    await eventually_async(lambda: instance.offline_since is not None, f"{name} is away")


def come_back(relay: FakeRelay, name: str = "laptop", directory: str = "/") -> None:
    relay.transport.announce(name, "http://127.0.0.1:9", directory=directory)


async def recorded(relay: FakeRelay, kind: str, count: int = 1) -> list[Entry]:
    """Wait until so many entries of a kind are in the journal, and return them."""
    await eventually_async(lambda: len(relay.entries(kind)) == count, f"{count} {kind}", within=20)
    return relay.entries(kind)


@asynccontextmanager
async def away(state_dir: Path, agent: FakeAgent) -> AsyncIterator[FakeRelay]:
    """Run a copy that has seen `laptop`, which is away now."""
    async with fake_relay(state_dir, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        await leave(relay)
        yield relay


def texts(agent: FakeAgent) -> list[str]:
    return [prompt.text for prompt in agent.posted]
