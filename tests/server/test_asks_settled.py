"""What a person decides of an ask: sent once and surely, and only what the machine's owner lets through."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from opencode_fleet.drive import Driver
from opencode_fleet.errors import Refused
from opencode_fleet.events import AskOpened
from opencode_fleet.model import Permission, Status
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from opencode_fleet.model import Ask


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


def seen(_ask: Ask) -> bool:
    """Say that the person had all of it."""
    return True


@pytest.mark.parametrize("rights", [None, frozenset({"observe", "approve", "always"})])
async def test_always_is_sent_where_the_owner_lets_it_through(rights: frozenset[str] | None) -> None:
    agent = FakeAgent()
    agent.rights = rights
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        asked = await driver.send(instance, "ask me", None, ignored)
        assert (await driver.reply(instance, asked.asks[0].id, "always", ignored, seen)).result == "done"
        assert agent.decisions == [("always", None)]


async def test_always_is_refused_where_the_owner_does_not_let_it_through() -> None:
    agent = FakeAgent()
    agent.rights = frozenset({"observe", "drive", "approve"})
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        asked = await driver.send(instance, "ask me", None, ignored)
        with pytest.raises(Refused, match=r"does not let `always` through from afar.*Nothing was settled"):
            await driver.reply(instance, asked.asks[0].id, "always", ignored, seen)
        assert agent.decisions == []
        assert (await driver.reply(instance, asked.asks[0].id, "once", ignored, seen)).result == "done"


async def test_always_is_refused_where_the_ask_says_why() -> None:
    agent = FakeAgent()
    session = agent.add_session("/")
    ask = Permission(id="per_1", session_id=session.id, action="edit", always_refused="all repositories share it")
    agent.statuses[session.id], agent.open[ask.id] = Status(), ask
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        with pytest.raises(Refused, match="all repositories share it"):
            await Driver(fleet, 30).reply(instance, ask.id, "always", ignored, seen)
        assert agent.decisions == []


async def test_what_always_releases_besides_is_not_called_open() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        asked = await driver.send(instance, "ask me", None, ignored)
        other = Permission(id="per_other", session_id=asked.session_id, action="bash")
        agent.open[other.id] = other
        agent.tell(AskOpened(other))
        await eventually_async(lambda: len(instance.state.pending_asks()) == 2)
        really = agent.reply

        async def reply(ask: Permission, decision: str, reason: str | None) -> None:
            del agent.open[other.id]  # and its own notice comes later, if ever
            await really(ask, decision, reason)

        agent.reply = reply  # type: ignore[method-assign] # OpenCode settles all that it covers
        outcome = await driver.reply(instance, asked.asks[0].id, "always", ignored, seen)
        assert (outcome.result, outcome.asks) == ("done", ())


async def test_a_reply_whose_caller_goes_away_settles_all_the_same() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        asked = await driver.send(instance, "ask me", None, ignored)
        begun, go_on, really = asyncio.Event(), asyncio.Event(), agent.reply

        async def slow(ask: Permission, decision: str, reason: str | None) -> None:
            begun.set()
            await go_on.wait()
            await really(ask, decision, reason)

        agent.reply = slow  # type: ignore[method-assign] # on a slow line
        replying = asyncio.create_task(driver.reply(instance, asked.asks[0].id, "once", ignored, seen))
        await begun.wait()
        replying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await replying
        go_on.set()
        await eventually_async(lambda: agent.decisions == [("once", None)])


async def test_an_ask_that_somebody_else_settled_is_called_that_with_how() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        asked = await driver.send(instance, "ask me", None, ignored)
        (ask,) = asked.asks
        assert isinstance(ask, Permission)
        await agent.reply(ask, "always", None)
        await eventually_async(partial(instance.state.settled_how.get, ask.id))
        with pytest.raises(Refused, match=r"was settled by somebody else \(always\)"):
            await driver.reply(instance, ask.id, "once", ignored, seen)
        with pytest.raises(Refused, match="does not wait for 'per_nobody'"):
            await driver.reply(instance, "per_nobody", "once", ignored, seen)
