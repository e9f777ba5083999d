"""Messages for instances that are away, over restarts of the server, several copies of it and broken lines."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet.errors import Refused, Unreachable
from opencode_journal.entries import (
    MESSAGE,
    MESSAGE_ANSWERED,
    MESSAGE_DELIVERED,
    MESSAGE_FAILED,
)
from support.fleet.asleep import away, come_back, kept, leave, look_at_once, recorded, texts
from support.fleet.fake_relay import fake_copy, fake_relay
from support.opencodes.fake_agent import FakeAgent
from support.opencodes.fake_hanging import FakeHanging
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nobody to wait for seconds."""
    look_at_once(monkeypatch)


class LosingAgent(FakeHanging):
    """An agent that takes a prompt in and never says so."""

    async def prompt(self, prompt: Any) -> None:
        """See `Agent.prompt`."""
        if "answer" in self.hangs:
            await FakeAgent.prompt(self, prompt)
            self.held += 1
            await asyncio.Event().wait()
        await super().prompt(prompt)


@pytest.mark.parametrize(("hangs", "posts"), [("prompt", 1), ("answer", 1)])
async def test_a_server_that_ends_while_it_posts_sends_it_once(tmp_path: Path, hangs: str, posts: int) -> None:
    agent = LosingAgent()
    agent.add_session("/")
    async with away(tmp_path, agent) as relay:
        agent.hangs.add(hangs)
        handle = await kept(relay, "hello")
        come_back(relay)
        await eventually_async(lambda: agent.held, "it is being posted", within=20)
        with pytest.raises(Refused, match=f"{handle} is being sent to session .* may have arrived"):
            relay.outbox.cancel(handle, "", "ann")
    agent.hangs.clear()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await recorded(relay, MESSAGE_ANSWERED)
        assert [entry.data[MESSAGE] for entry in relay.entries(MESSAGE_DELIVERED)] == [handle]
    assert len(agent.posted) == posts


async def test_a_server_that_ends_while_the_turn_runs_leaves_its_end_to_the_next_one(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    agent.gate.clear()
    async with away(tmp_path, agent) as relay:
        await kept(relay, "hello")
        come_back(relay)
        await recorded(relay, MESSAGE_DELIVERED)
    agent.gate.set()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        (end,) = await recorded(relay, MESSAGE_ANSWERED)
        assert end.session == agent.posted[0].session_id
    assert texts(agent) == ["hello"]


async def test_of_two_copies_one_sends_what_the_other_accepted(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with away(tmp_path, agent) as leader, fake_copy(tmp_path, {"laptop": agent}) as other:
        await other.fleet.find_live("laptop")
        await leave(other)
        handles = [await kept(other, f"message {number}") for number in range(3)]
        assert [message.handle for message in leader.outbox.messages()] == handles
        come_back(other)
        instance = await other.fleet.find("laptop")
        await eventually_async(lambda: instance.connected.is_set() and instance.offline_since is None, "it is back")
        await other.deliverer._look()
        # It could send them, and it is not the one that leads.
        assert [message.step for message in other.outbox.messages()] == ["waits"] * 3
        assert not other.deliverer._tasks
        come_back(leader)
        await recorded(other, MESSAGE_ANSWERED, 3)
        assert texts(agent) == ["message 0", "message 1", "message 2"]


async def test_while_the_line_is_broken_it_waits_for_the_same_session(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with away(tmp_path, agent) as relay:
        await kept(relay, "hello")
        agent.trouble = Unreachable("nothing listens", refused=True)
        come_back(relay)
        await asyncio.sleep(0)
        assert not relay.entries(MESSAGE_FAILED)
        agent.trouble = None
        await recorded(relay, MESSAGE_ANSWERED)
        assert [prompt.session_id for prompt in agent.posted] == [session]
