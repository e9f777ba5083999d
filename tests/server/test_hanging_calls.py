"""What an agent never answers, or not to its end, holds nobody up for long and loses nothing."""

from __future__ import annotations

import asyncio

import pytest

from opencode_fleet import connection as connection_module
from opencode_fleet import turn as turn_module
from opencode_fleet.drive import Driver
from opencode_fleet.errors import Unresponsive
from opencode_fleet.events import StatusChanged, TextChanged
from opencode_fleet.model import Status
from support.fake_agent import fake_fleet
from support.fake_hanging import FakeHanging
from support.waiting import eventually_async

SOON = 60
"""Seconds after which a test counts as hanging."""


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


async def test_what_runs_is_given_up_if_it_does_not_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "REFRESH_WITHIN", 0.2)
    agent = FakeHanging()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        agent.hangs.add("runs")
        async with asyncio.timeout(SOON):
            with pytest.raises(Unresponsive, match="did not tell in time what runs there"):
                await instance.refresh()


async def test_only_what_is_replayed_is_kept_while_what_runs_is_fetched() -> None:
    agent = FakeHanging()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        agent.hangs.add("runs")
        fetching = asyncio.create_task(instance.refresh())
        await eventually_async(lambda: agent.held, "the call")
        agent.tell(TextChanged("ses_1", "prt_1", "x" * 1_000, is_whole=False))
        agent.tell(StatusChanged("ses_1", Status()))
        await eventually_async(lambda: instance.state.is_busy("ses_1"), "the events")
        (kept,) = instance._connection._recorders
        assert kept == [StatusChanged("ses_1", Status())]
        fetching.cancel()


async def test_a_turn_whose_agent_does_not_tell_what_runs_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_INTERVAL", "RECORD_WITHIN"):
        monkeypatch.setattr(turn_module, name, 0.1)
    agent = FakeHanging()
    agent.gate.clear()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        agent.hangs.add("runs")
        async with asyncio.timeout(50):  # less than `REFRESH_WITHIN`
            outcome = await Driver(fleet, 0.5).send(instance, "hello", "new", ignored)
        assert outcome.result == "running"
        assert agent.held
