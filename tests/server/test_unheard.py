"""Turns that were begun from here and that nobody saw run: their ends are told once, by the agent's records."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import own_turns as own_turns_module
from opencode_fleet import unheard as unheard_module
from opencode_fleet.errors import Unreachable
from opencode_fleet.events import PromptTaken, StatusChanged
from opencode_fleet.model import Message, Part, Prompt, Status
from opencode_fleet.own_turns import OwnTurns
from opencode_journal.entries import STOPPED, TURN_ENDED, TURN_FAILED, TURN_STARTED
from support.fleet.fake_relay import FakeRelay, fake_relay
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

ENDS = (TURN_ENDED, TURN_FAILED)


class InABreak(FakeAgent):
    """An agent that tells nothing of what it does: it begins and ends while nobody hears."""

    error = ""
    is_stopped = False
    is_finished = True

    def take_in(self, prompt: Prompt) -> None:
        """Do the whole turn without a word."""
        text = Part(id=f"prt_{prompt.id}", kind="text", text=prompt.text)
        asked = Message(id=prompt.id, session_id=prompt.session_id, role="user", parts=(text,), created=1.0)
        answer = Message(
            id=f"{prompt.id}a",
            session_id=prompt.session_id,
            role="assistant",
            answers=prompt.id,
            completed=time.time() if self.is_finished else None,
            ended="well" if self.is_finished and not self.error else "",
            error=self.error,
            is_stopped=self.is_stopped,
        )
        self.conversations[prompt.session_id] += [asked, answer]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at once, and often."""
    monkeypatch.setattr(unheard_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(unheard_module, "SETTLED_AFTER", 0.05)
    monkeypatch.setattr(unheard_module, "UNFINISHED_AFTER", 0.1)


async def post(relay: FakeRelay, text: str = "hello") -> str:
    """Send a message and wait for no turn; return its session."""
    (outcome,) = await relay.face.driver.send_to_all([await relay.fleet.find_live("laptop")], text, None)
    assert not isinstance(outcome, Exception)
    return outcome.session_id


async def told(relay: FakeRelay, count: int = 1) -> None:
    """Wait until so many ends are told, and nothing is left to tell."""
    turns = OwnTurns(relay.journal)
    await eventually_async(lambda: len(relay.entries(*ENDS)) >= count and not turns.untold(), "the ends", within=20)
    assert len(relay.entries(*ENDS)) == count


async def test_the_end_of_a_turn_that_nobody_saw_is_told_once_by_the_records(tmp_path: Path) -> None:
    agent = InABreak()
    agent.add_session("/")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        session = await post(relay)
        await told(relay)
        (end,) = relay.entries(*ENDS)
        assert (end.kind, end.session, end.data) == (TURN_ENDED, session, {"title": "a session"})


async def test_one_that_failed_so_says_why(tmp_path: Path) -> None:
    agent = InABreak()
    agent.add_session("/")
    agent.error = "no such model"
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await post(relay)
        await told(relay)
        (end,) = relay.entries(*ENDS)
        assert (end.kind, end.data["problem"]) == (TURN_FAILED, "no such model")


async def test_one_that_somebody_stopped_is_told_as_stopped_though_its_answer_has_an_error(tmp_path: Path) -> None:
    agent = InABreak()
    agent.add_session("/")
    agent.error, agent.is_stopped = "it was stopped (MessageAbortedError)", True
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await post(relay)
        await told(relay)
        (end,) = relay.entries(*ENDS)
        assert (end.kind, end.data[STOPPED]) == (TURN_ENDED, True)
        assert "problem" not in end.data


async def test_one_that_was_broken_off_is_told_as_ended_unseen(tmp_path: Path) -> None:
    agent = InABreak()
    agent.add_session("/")
    agent.is_finished = False
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await post(relay)
        await told(relay)
        (end,) = relay.entries(*ENDS)
        assert (end.kind, end.data["unseen"]) == (TURN_ENDED, True)


async def test_one_that_another_followed_is_over_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unheard_module, "UNFINISHED_AFTER", 3600.0)
    agent = InABreak()
    session = agent.add_session("/").id
    agent.is_finished = False
    async with fake_relay(tmp_path, laptop=agent) as relay:
        turns = OwnTurns(relay.journal)
        for number in range(3):
            turns.note("laptop", session, f"msg_{number}")
            agent.take_in(Prompt(session, f"msg_{number}", "hello"))
        await eventually_async(lambda: len(relay.entries(*ENDS)) == 2, "the ends of the first two")
        assert [begun.prompt for begun in turns.untold()] == ["msg_2"]


async def test_one_that_never_arrived_holds_up_none_that_did(tmp_path: Path) -> None:
    agent = InABreak()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        turns = OwnTurns(relay.journal)
        turns.note("laptop", session, "msg_lost")
        turns.note("laptop", session, "msg_1")
        agent.take_in(Prompt(session, "msg_1", "hello"))
        await eventually_async(lambda: relay.entries(*ENDS), "the end of what arrived")
        assert [begun.prompt for begun in turns.untold()] == ["msg_lost"]


async def test_a_server_that_ended_meanwhile_leaves_it_to_the_next_one(tmp_path: Path) -> None:
    agent = InABreak()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        OwnTurns(relay.journal).note("laptop", session, "msg_1")
        agent.trouble = Unreachable("the line broke")
    agent.trouble = None
    agent.take_in(Prompt(session, "msg_1", "hello"))
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await told(relay)


async def test_one_that_was_seen_to_run_is_told_as_always_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        for number in range(3):
            await relay.face.driver.send(instance, f"number {number}", None, Notes().take)
        await told(relay, 3)
        assert len(relay.entries(TURN_STARTED)) == 3


async def test_the_end_of_the_next_turn_does_not_hide_one_that_was_missed(tmp_path: Path) -> None:
    agent = InABreak()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        agent.tell(StatusChanged(session, Status()))
        await eventually_async(lambda: relay.entries(TURN_STARTED), "it runs")
        turns = OwnTurns(relay.journal)
        for prompt_id in ("msg_1", "msg_2"):
            agent.take_in(replace(Prompt(session, prompt_id, prompt_id)))
            turns.note("laptop", session, prompt_id)
        agent.tell(PromptTaken(session, "msg_2"))
        agent.tell(StatusChanged(session, None))
        await told(relay, 2)
        assert not instance.state.is_busy(session)


async def test_nothing_is_told_of_what_was_not_sent_or_never_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = InABreak()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        agent.trouble = Unreachable("nobody listens", refused=True)
        with pytest.raises(Unreachable, match="nothing was sent"):
            await relay.face.driver.send(instance, "hello", None, Notes().take)
        agent.trouble = None
        turns = OwnTurns(relay.journal)
        assert not turns.untold()
        monkeypatch.setattr(unheard_module, "NEVER_AFTER", 0.0)
        turns.note("laptop", session, "msg_lost")
        await eventually_async(lambda: not turns.untold(), "it is given up", within=20)
        assert not relay.entries(*ENDS)


async def test_only_so_many_of_a_session_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_turns_module, "MAX_OF_SESSION", 2)
    async with fake_relay(tmp_path) as relay:
        turns = OwnTurns(relay.journal)
        for number in range(3):
            turns.note("laptop", "ses_1", f"msg_{number}")
        assert [begun.prompt for begun in turns.untold()] == ["msg_1", "msg_2"]
