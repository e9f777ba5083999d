"""Which session a message goes into, where another process of the same person may be at work in it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import sessions as sessions_module
from opencode_fleet.drive import Driver
from opencode_fleet.errors import Refused
from opencode_fleet.events import AnswerChanged, PromptTaken
from opencode_fleet.model import Message, Part, Status, ToolCall
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from opencode_fleet.model import Session

HOUR = 3600.0


class Shared(FakeAgent):
    """An agent whose sessions another process writes into: what it writes next comes between two looks."""

    def __init__(self) -> None:
        super().__init__()
        self.coming: dict[str, list[Message]] = {}
        self.looks: list[str] = []
        self.meeting: asyncio.Barrier | None = None
        """Where a call for a session and one for its messages wait for each other."""

    async def session(self, session_id: str) -> Session:
        self.looks.append(f"session {session_id}")
        await self._meet()
        return await super().session(session_id)

    async def _meet(self) -> None:
        if self.meeting is not None:
            await self.meeting.wait()

    async def messages(self, session_id: str, limit: int, **_options: object) -> list[Message]:
        found = await super().messages(session_id, limit)
        self.looks.append(session_id)
        await self._meet()
        self.conversations[session_id] += self.coming.pop(session_id, [])
        return found


def prompt_of(session: Session) -> Message:
    return Message(id="msg_1", session_id=session.id, role="user", created=time.time())


def answer_of(session: Session, **more: object) -> Message:
    answer = Message(id="msg_2", session_id=session.id, role="assistant", answers="msg_1", created=time.time())
    return replace(answer, **more)  # type: ignore[arg-type]


@pytest.fixture
def slow_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two looks be so far apart that a test which waits for the second one hangs."""
    monkeypatch.setattr(sessions_module, "LOOKS_APART", HOUR)


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look twice at once."""
    monkeypatch.setattr(sessions_module, "LOOKS_APART", 0.0)


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


async def sent_into(agent: FakeAgent, wanted: str | None) -> tuple[str, str]:
    """Send a message; return the session that it went into, and what is said of that."""
    async with fake_fleet(laptop=agent) as (fleet, _):
        outcome = await Driver(fleet, 30).send(await fleet.find_live("laptop"), "hello", wanted, ignored)
        assert (outcome.result, outcome.text) == ("done", "echo: hello")
        return outcome.session_id, outcome.note


async def is_refused(agent: FakeAgent, wanted: str) -> bool:
    async with fake_fleet(laptop=agent) as (fleet, _):
        with pytest.raises(Refused, match="is being run by another OpenCode on that machine; nothing was sent"):
            await Driver(fleet, 30).send(await fleet.find_live("laptop"), "hello", wanted, ignored)
        return not agent.posted


@pytest.mark.usefixtures("slow_looks")
@pytest.mark.parametrize("away", [-2 * HOUR, 0.0, 2 * HOUR])
async def test_an_answer_that_changed_just_now_by_its_own_machines_clock_is_being_written(away: float) -> None:
    agent = Shared()
    session = agent.add_session("/")
    agent.clock = time.time() + away
    part = Part(id="prt_1", kind="tool", call=ToolCall(name="bash"), changed=agent.clock - 50)
    agent.conversations[session.id] = [answer_of(session, created=agent.clock - HOUR, parts=(part,))]
    assert await is_refused(agent, session.id)
    into, note = await sent_into(agent, None)
    assert into != session.id
    assert note == f"session {session.id} is being run by another OpenCode on that machine, so a new one was begun"


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("clock", [None, 0.0, HOUR])
@pytest.mark.parametrize("wanted", [True, False])
async def test_a_turn_that_nobody_goes_on_with_is_interrupted_and_its_session_is_taken(
    clock: float | None, wanted: bool
) -> None:
    agent = Shared()
    session = agent.add_session("/")
    agent.clock = clock
    agent.conversations[session.id] = [answer_of(session, created=clock - 61 if clock else time.time())]
    assert await sent_into(agent, session.id if wanted else None) == (session.id, "")
    assert agent.looks.count(session.id) == 2


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("at", ["prompt", "writing", "between two steps", "broken off"])
async def test_a_turn_that_goes_on_between_two_looks_is_another_process_s(at: str) -> None:
    agent = Shared()
    session = agent.add_session("/")
    text = Part(id="prt_1", kind="text", text="more")
    before, after = {
        "prompt": (prompt_of(session), answer_of(session)),
        "writing": (answer_of(session), answer_of(session, parts=(text,))),
        "between two steps": (
            answer_of(session, completed=time.time(), ended="for-tools"),
            answer_of(session, id="msg_3"),
        ),
        "broken off": (answer_of(session, completed=time.time(), ended="broken"), answer_of(session, id="msg_3")),
    }[at]
    agent.conversations[session.id], agent.coming[session.id] = [before], [after]
    assert await is_refused(agent, session.id)


@pytest.mark.usefixtures("slow_looks")
@pytest.mark.parametrize(
    "more",
    [{"completed": 1.0, "ended": "well"}, {"completed": 1.0, "ended": "failed", "error": "x"}, {"error": "x"}],
)
async def test_a_turn_that_ended_needs_no_second_look(more: dict[str, object]) -> None:
    agent = Shared()
    session = agent.add_session("/")
    agent.clock = time.time()
    agent.conversations[session.id] = [answer_of(session, **more)]
    assert await sent_into(agent, session.id) == (session.id, "")


@pytest.mark.usefixtures("slow_looks")
@pytest.mark.parametrize("newest", ["prompt", "answer"])
async def test_what_the_agents_own_events_told_of_is_its_own_and_was_left_behind(newest: str) -> None:
    agent = Shared()
    session = agent.add_session("/")
    agent.clock = time.time()
    agent.conversations[session.id] = [prompt_of(session)]
    if newest == "answer":
        agent.conversations[session.id].append(answer_of(session))
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        agent.tell(PromptTaken(session.id, "msg_1"))
        agent.tell(AnswerChanged(session.id, "msg_2", "msg_1", ""))
        # Both are known once what is told after them is.
        other = await driver.send(instance, "hello", "new", ignored)
        outcome = await driver.send(instance, "go on", session.id, ignored)
    assert other.session_id != session.id
    assert (outcome.result, outcome.session_id) == ("done", session.id)


@pytest.mark.usefixtures("slow_looks")
@pytest.mark.parametrize("is_named", [True, False])
async def test_a_turn_that_began_here_this_very_moment_is_no_other_process_s(is_named: bool) -> None:
    agent = Shared()
    session = agent.add_session("/")
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        agent.clock = time.time()
        agent.conversations[session.id] = [prompt_of(session), answer_of(session)]
        agent.statuses[session.id] = Status()  # which no event has told yet
        with pytest.raises(Refused, match=f"is busy in session {session.id}"):
            await driver.send(instance, "hello", session.id if is_named else None, ignored)
        assert list(agent.made) == [session.id]


async def test_of_messages_at_once_one_is_taken_and_none_goes_into_a_session_of_its_own() -> None:
    agent = FakeAgent()
    session = agent.add_session("/")
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        agent.gate.clear()
        calls = [asyncio.create_task(driver.send(instance, f"number {number}", None, ignored)) for number in range(4)]
        await eventually_async(lambda: sum(call.done() for call in calls) == 3)
        agent.gate.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 3
        assert list(agent.made) == [session.id]
        assert len(agent.posted) == 1


@pytest.mark.usefixtures("slow_looks")
async def test_a_session_that_ran_here_a_moment_ago_may_be_another_process_s_by_now() -> None:
    agent = Shared()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        ran = await driver.send(instance, "hello", None, ignored)
        session = agent.made[ran.session_id]
        agent.clock = time.time()
        agent.conversations[session.id].append(answer_of(session))
        with pytest.raises(Refused, match="is being run by another OpenCode"):
            await driver.send(instance, "into it", session.id, ignored)
        beside = await driver.send(instance, "beside it", None, ignored)
        assert beside.session_id != session.id
        assert [prompt.text for prompt in agent.posted] == ["hello", "beside it"]


@pytest.mark.parametrize("is_named", [True, False])
async def test_a_session_and_its_newest_message_are_asked_for_once_and_together(is_named: bool) -> None:
    agent = Shared()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        ran = await driver.send(instance, "hello", None, ignored)
        agent.looks.clear()
        agent.meeting = asyncio.Barrier(2)
        await driver.send(instance, "again", ran.session_id if is_named else None, ignored)
        assert agent.looks == [f"session {ran.session_id}", ran.session_id]


async def test_a_session_is_as_it_is_now_and_not_as_it_was_when_it_ran_here() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        ran = await driver.send(instance, "hello", None, ignored)
        agent.made[ran.session_id] = replace(agent.made[ran.session_id], agent="plan", model="a/b")
        await driver.send(instance, "plan it", None, ignored)
        assert [(prompt.agent, prompt.model) for prompt in agent.posted] == [("", ""), ("plan", "a/b")]
        agent.made[ran.session_id] = replace(agent.made[ran.session_id], is_archived=True)
        assert (await driver.send(instance, "anew", None, ignored)).session_id != ran.session_id
