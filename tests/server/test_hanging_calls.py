"""What an agent never answers, or not to its end, holds nobody up for long and loses nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import connection as connection_module
from opencode_fleet import posting as posting_module
from opencode_fleet import sending as sending_module
from opencode_fleet import turn as turn_module
from opencode_fleet.drive import Driver
from opencode_fleet.errors import Unresponsive
from opencode_fleet.events import StatusChanged, TextChanged
from opencode_fleet.model import Status
from support.opencodes.fake_agent import fake_fleet
from support.opencodes.fake_hanging import FakeHanging
from support.waiting import eventually_async

if TYPE_CHECKING:
    from opencode_fleet.model import Ask

SOON = 60
"""Seconds after which a test counts as hanging."""


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


def seen(_ask: Ask) -> bool:
    """Say that the person had all of it."""
    return True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave an agent a tenth of a second where a person would be left to wait for seconds."""
    monkeypatch.setattr(turn_module, "LOOK_INTERVAL", 0.1)
    for module in (turn_module, sending_module, posting_module):
        monkeypatch.setattr(module, "RECORD_WITHIN", 0.1)


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


@pytest.mark.usefixtures("impatient")
async def test_a_turn_whose_agent_does_not_tell_what_runs_ends_with_its_time() -> None:
    agent = FakeHanging()
    agent.gate.clear()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        agent.hangs.add("runs")
        async with asyncio.timeout(50):  # less than `REFRESH_WITHIN`
            outcome = await Driver(fleet, 0.5).send(instance, "hello", "new", ignored)
        assert outcome.result == "running"
        assert agent.held


@pytest.mark.usefixtures("impatient")
async def test_a_message_is_not_sent_where_its_session_does_not_tell_in_time_what_is_in_it() -> None:
    agent = FakeHanging()
    session = agent.add_session("/")
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        agent.hangs.add("messages")
        async with asyncio.timeout(SOON):
            with pytest.raises(Unresponsive, match="did not come in time; nothing was sent"):
                await Driver(fleet, 0.5).send(instance, "hello", session.id, ignored)
        assert agent.held
        assert not agent.posted


@pytest.mark.usefixtures("impatient")
async def test_a_message_of_which_nobody_says_that_it_was_taken_may_have_arrived() -> None:
    agent = FakeHanging()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        agent.hangs.add("prompt")
        async with asyncio.timeout(SOON):
            with pytest.raises(Unresponsive, match="it may have arrived") as raised:
                await Driver(fleet, 0.5).send(instance, "hello", "new", ignored)
        (session,) = agent.made
        assert session in str(raised.value)


@pytest.mark.usefixtures("impatient")
async def test_a_person_s_word_is_settled_though_no_message_can_be_had() -> None:
    agent = FakeHanging()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 0.5)
        asked = await driver.send(instance, "ask me", "new", ignored)
        agent.hangs.add("messages")
        async with asyncio.timeout(SOON):
            await driver.reply(instance, asked.asks[0].id, "once", ignored, seen)
        assert agent.decisions == [("once", None)]
