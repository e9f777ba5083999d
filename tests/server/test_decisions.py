"""Who decided of an ask: kept in the journal, and told to who comes later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_fleet.decisions import Decision
from opencode_fleet.errors import NotFound, Refused
from opencode_journal.entries import ASK_SETTLED
from opencode_mcp.caller import Caller
from support.fleet.fake_relay import fake_relay
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_fleet.model import Ask

ANN = Caller("ann", frozenset({"observe", "approve", "drive"}))
BEN = Caller("ben\x1b[2J\u202e" + "x" * 300, ANN.may)


def seen(_ask: Ask) -> bool:
    """Say that the person had all of it."""
    return True


async def test_the_journal_has_the_login_that_decided_and_the_next_one_hears_it(tmp_path: Path) -> None:
    agent = FakeAgent()
    async with fake_relay(tmp_path, laptop=agent) as relay, fake_relay(tmp_path, laptop=agent) as other:
        ask = agent.add_ask(agent.add_session("/").id)
        for copy in (relay, other):
            instance = await copy.fleet.find_live("laptop")
            await eventually_async(instance.state.pending_asks)
        instance = await relay.fleet.find_live("laptop")
        await relay.face.of(ANN).driver.reply(instance, ask.id, "once", Notes().take, seen)
        await eventually_async(lambda: relay.entries(ASK_SETTLED))
        (settled,) = relay.entries(ASK_SETTLED)
        assert (settled.data["how"], settled.data["by_us"], settled.data["by"]) == ("once", True, "ann")
        # Nothing is left of the note, and whoever is late hears of it also from another copy of the server.
        assert relay.recorder.decisions.noted("laptop", ask.id) is None
        there = await other.fleet.find_live("laptop")
        await eventually_async(lambda: there.state.settled_how)
        with pytest.raises(Refused, match=r"settled by somebody else \(once, by ann\)"):
            await other.face.of(BEN).driver.reply(there, ask.id, "reject", Notes().take, seen)


async def test_who_is_too_late_takes_nothing_from_who_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = FakeAgent()
    ask = agent.add_ask(agent.add_session("/").id)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        await eventually_async(instance.state.pending_asks)

        async def is_gone(*_args: object) -> None:
            raise NotFound("there is no such permission")

        monkeypatch.setattr(agent, "reply", is_gone)
        # Another copy has noted its own decision, and told the agent first.
        relay.recorder.decisions.note("laptop", ask.id, Decision("once", "ann"))
        with pytest.raises(Refused, match=r"settled by somebody else meanwhile \(by ann\)"):
            await relay.face.of(BEN).driver.reply(instance, ask.id, "once", Notes().take, seen)
        assert relay.recorder.decisions.noted("laptop", ask.id) == ("once", "ann")


async def test_a_login_is_short_and_clean_in_the_journal(tmp_path: Path) -> None:
    agent = FakeAgent()
    ask = agent.add_ask(agent.add_session("/").id)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        await eventually_async(instance.state.pending_asks)
        await relay.face.of(BEN).driver.reply(instance, ask.id, "reject", Notes().take, seen)
        await eventually_async(lambda: relay.entries(ASK_SETTLED))
        login = relay.entries(ASK_SETTLED)[0].data["by"]
        assert login.isprintable()
        assert login.startswith("ben")
        assert len(login) <= 80
