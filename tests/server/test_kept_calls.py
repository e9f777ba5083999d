"""The same call to the server after one that ended in the middle of it: nothing is sent again that arrived."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import kept_calls as kept_calls_module
from opencode_fleet import posting as posting_module
from opencode_fleet.choices import Manner
from opencode_fleet.errors import Unreachable
from opencode_fleet.events import StatusChanged
from opencode_fleet.later import Kept
from opencode_fleet.outbox import Draft
from opencode_fleet.sending import AS_IT_IS
from opencode_journal.entries import MESSAGE_ANSWERED
from support.fleet.fake_relay import FakeRelay, fake_relay
from support.opencodes.fake_agent import FakeAgent
from support.opencodes.fake_hanging import FakeHanging
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_fleet.model import Outcome


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look a second time at once."""
    monkeypatch.setattr(posting_module, "STORED_WITHIN", 0.02)


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


async def send(relay: FakeRelay, message: str = "hello", manner: Manner = AS_IT_IS) -> Outcome:
    instance = await relay.fleet.find_live("laptop")
    return await relay.face.driver.send(instance, message, None, ignored, manner)


async def cut(relay: FakeRelay, agent: FakeAgent, *, manner: Manner = AS_IT_IS, posts: int = 1) -> None:
    """Send a message and let its server end in the middle of the turn."""
    call = asyncio.create_task(send(relay, manner=manner))
    await eventually_async(lambda: len(agent.posted) == posts, "it is posted")
    call.cancel()
    await asyncio.wait([call])


def kept(relay: FakeRelay) -> list[str]:
    return relay.journal.state_keys("call/")


async def test_what_arrived_is_taken_up_by_the_next_server(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    agent.gate.clear()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await cut(relay, agent)
        assert len(kept(relay)) == 1
    async with fake_relay(tmp_path, laptop=agent) as relay:
        again = asyncio.create_task(send(relay))
        await asyncio.sleep(0)
        agent.gate.set()
        outcome = await again
        assert (outcome.result, outcome.text) == ("done", "echo: hello")
        assert "this very message was sent before" in outcome.note
        assert len(agent.posted) == 1
        # Its caller knows by now, and means the next one to this server anew.
        assert not (await send(relay)).note
        assert len(agent.posted) == 2


async def test_one_into_a_running_turn_is_sent_once_too(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    agent.gate.clear()
    agent.tell_busy(session, "thinking")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await cut(relay, agent, manner=Manner("steer"))
    async with fake_relay(tmp_path, laptop=agent) as relay:
        agent.gate.set()
        outcome = await send(relay, manner=Manner("steer"))
        assert "this very message was sent before" in outcome.note
        assert len(agent.posted) == 1


async def test_what_did_not_arrive_is_sent(tmp_path: Path) -> None:
    agent = FakeHanging()
    agent.add_session("/")
    agent.hangs.add("prompt")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        call = asyncio.create_task(send(relay))
        await eventually_async(lambda: agent.held, "it is being posted")
        call.cancel()
        await asyncio.wait([call])
    agent.hangs.clear()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        outcome = await send(relay)
        assert (outcome.result, outcome.note) == ("done", "")
        assert len(agent.posted) == 1


async def test_a_call_whose_answer_may_be_lost_is_not_sent_again_by_the_next_server(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await send(relay)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        outcome = await send(relay)
        assert (outcome.result, outcome.text) == ("done", "echo: hello")
        assert "say so in other words" in outcome.note
        assert len(agent.posted) == 1


async def test_a_call_that_was_answered_a_while_ago_is_meant_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_calls_module, "ANSWERED_FOR", 0.0)
    agent = FakeAgent()
    agent.add_session("/")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await send(relay)
        await send(relay, "another")
        assert len(kept(relay)) == 1, "the older one is forgotten"
    async with fake_relay(tmp_path, laptop=agent) as relay:
        assert not (await send(relay, "another")).note
    assert len(agent.posted) == 3


async def test_only_so_many_answered_calls_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_calls_module, "MAX_ANSWERED", 2)
    agent = FakeAgent()
    agent.add_session("/")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        for number in range(4):
            await send(relay, str(number))
        assert len(kept(relay)) == 2


async def test_nothing_is_kept_of_what_was_not_sent(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        agent.trouble = Unreachable("nobody listens", refused=True)
        with pytest.raises(Unreachable, match="nothing was sent"):
            await send(relay)
        assert kept(relay) == []


async def held_back(relay: FakeRelay, agent: FakeHanging) -> str:
    """Let a server end while its post has not arrived; return the prompt's id."""
    agent.hangs.add("prompt")
    call = asyncio.create_task(send(relay))
    await eventually_async(lambda: agent.held, "it is being posted")
    call.cancel()
    await asyncio.wait([call])
    (key,) = kept(relay)
    return str(relay.journal.state(key)["prompt"])


async def test_what_did_not_arrive_yet_is_sent_under_the_same_id(tmp_path: Path) -> None:
    agent = FakeHanging()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        prompt_id = await held_back(relay, agent)
    agent.hangs.clear()
    agent.add_session("/", "a newer one")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        assert not (await send(relay)).note
        # Its first post may come out still: it is the same message in the same place.
        assert [(prompt.session_id, prompt.id) for prompt in agent.posted] == [(session, prompt_id)]


async def test_one_for_later_stays_the_same_message_too(tmp_path: Path) -> None:
    agent = FakeHanging()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        prompt_id = await held_back(relay, agent)
    agent.hangs.clear()
    agent.tell_busy(session, "something else")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        place = await relay.face.later.place("laptop")
        kept_for_later = await relay.face.later.send(place, Draft("laptop", "hello", "ann"), ignored)
        assert isinstance(kept_for_later, Kept)
        message = kept_for_later.message
        assert (message.id, message.to, message.step) == (prompt_id, session, "sending")
        agent.tell(StatusChanged(session, None))
        agent.statuses.clear()
        await eventually_async(lambda: relay.entries(MESSAGE_ANSWERED), "it is done", within=20)
        assert [prompt.id for prompt in agent.posted] == [prompt_id]
