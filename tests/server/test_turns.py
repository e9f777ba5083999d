"""What becomes of a message when a call is cut off, a notice is lost, or the agent takes its time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import fleet as fleet_module
from opencode_fleet import sending as sending_module
from opencode_fleet import turn as turn_module
from opencode_fleet.drive import Driver
from opencode_fleet.errors import AgentGone, Refused, Unreachable
from opencode_fleet.events import StatusChanged
from opencode_fleet.model import Status, TurnRecord
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from opencode_fleet.events import Event
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Outcome


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


def seen(_ask: Ask) -> bool:
    """Say that the person had all of it."""
    return True


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at once where a person would be left to wait for seconds."""
    for name in ("LOOK_INTERVAL", "SETTLING", "UNANSWERED_AFTER", "WAKE_AFTER", "GONE_AFTER", "TAKEN_OVER_WITHIN"):
        monkeypatch.setattr(turn_module, name, 0.1)


async def cut_off(driver: Driver, instance: Instance, message: str, agent: FakeAgent) -> None:
    """Send a message and go away while its turn runs, which the gate holds up."""
    agent.gate.clear()
    call = asyncio.create_task(driver.send(instance, message, None, ignored))
    await eventually_async(lambda: instance.state_name() == "busy", "its turn")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually_async(lambda: not (instance.posting or instance._listeners), "the end of the call")


# -- a call that was cut off and is repeated -------------------------------------------------------------------------


@pytest.mark.parametrize("ended", [True, False])
async def test_a_call_that_was_cut_off_and_is_repeated_takes_up_the_same_turn(ended: bool) -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        await cut_off(driver, instance, "hello", agent)
        if ended:
            agent.gate.set()
            await eventually_async(lambda: instance.state_name() == "idle")
        again = asyncio.create_task(driver.send(instance, "hello", None, ignored))
        agent.gate.set()
        outcome = await again
        assert (outcome.result, outcome.text) == ("done", "echo: hello")
        assert "nothing was sent again" in outcome.note
        assert len(agent.posted) == 1


async def test_a_repeated_call_that_is_cut_off_too_can_be_repeated_once_more() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        await cut_off(driver, instance, "hello", agent)
        second = asyncio.create_task(driver.send(instance, "hello", None, ignored))
        await eventually_async(lambda: instance._listeners, "the second call")
        second.cancel()
        await asyncio.wait([second])
        agent.gate.set()
        assert (await driver.send(instance, "hello", None, ignored)).text == "echo: hello"
        assert len(agent.posted) == 1


async def test_once_its_answer_was_told_or_in_other_words_a_message_is_sent_anew() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        await cut_off(driver, instance, "hello", agent)
        agent.gate.set()
        await eventually_async(lambda: instance.state_name() == "idle")
        assert (await driver.send(instance, "hello!", None, ignored)).note == ""
        assert (await driver.send(instance, "hello", None, ignored)).note != ""
        assert (await driver.send(instance, "hello", None, ignored)).note == ""
        assert [prompt.text for prompt in agent.posted] == ["hello", "hello!", "hello"]


# -- a notice that was lost ------------------------------------------------------------------------------------------


async def lost_idle(agent: FakeAgent, instance: Instance) -> str:
    """Let a session be busy by its events, and idle by all that the agent would say if it were asked."""
    session = agent.add_session("/")
    agent.tell(StatusChanged(session.id, Status()))
    await eventually_async(lambda: instance.state.is_busy(session.id))
    return session.id


async def test_before_a_message_is_refused_the_agent_is_asked_whether_it_is_still_busy() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        session_id = await lost_idle(agent, instance)
        outcome = await driver.send(instance, "hello", session_id, ignored)
        assert (outcome.result, outcome.text) == ("done", "echo: hello")
        agent.statuses[session_id] = Status()
        agent.tell(StatusChanged(session_id, Status()))
        await eventually_async(lambda: instance.state.is_busy(session_id))
        with pytest.raises(Refused, match="is busy in session"):
            await driver.send(instance, "hello", session_id, ignored)


async def test_a_session_that_runs_in_silence_is_asked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "QUIET_FOR", 0.2)
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        await lost_idle(agent, instance)
        await eventually_async(lambda: instance.state_name() == "idle", "the truth")


async def test_the_end_of_a_turn_of_which_nothing_was_told_is_found_all_the_same() -> None:
    agent = FakeAgent()
    agent.gate.clear()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        sending = asyncio.create_task(driver.send(instance, "hello", None, ignored))
        await eventually_async(lambda: instance.state_name() == "busy")
        told = agent.tell

        def say_nothing(event: Event | None) -> None:
            del event

        agent.tell = say_nothing  # type: ignore[method-assign] # the stream is up and says nothing
        agent.gate.set()
        assert (await sending).text == "echo: hello"
        agent.tell = told  # type: ignore[method-assign] # as above


# -- accepted and not begun ------------------------------------------------------------------------------------------


async def test_what_is_accepted_and_not_begun_is_not_failed_and_its_session_stays_taken() -> None:
    agent = FakeAgent()
    agent.takes_in = False
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        impatient, driver = Driver(fleet, 1), Driver(fleet, 30)
        outcome = await impatient.send(instance, "hello", None, ignored)
        assert (outcome.result, outcome.problem) == (
            "running",
            "OpenCode has accepted the message and not begun with it",
        )
        with pytest.raises(Refused, match="accepted a message and not begun with it"):
            await driver.send(instance, "before it", outcome.session_id, ignored)
        with pytest.raises(Refused, match="is busy in session"):
            await driver.send(instance, "before it", None, ignored)
        agent.takes_in = True
        agent.take_in(agent.posted[0])
        await eventually_async(lambda: not instance.posting, "its beginning")
        await eventually_async(lambda: instance.state_name() == "idle", "its end")
        after = await driver.send(instance, "after it", outcome.session_id, ignored)
        assert after.text == "echo: after it"


async def test_a_session_is_not_taken_for_ever_by_what_never_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending_module, "HELD_FOR", 0.1)
    agent = FakeAgent()
    agent.takes_in = False
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        driver = Driver(fleet, 0.5)
        await driver.send(instance, "hello", None, ignored)
        await eventually_async(lambda: not instance.posting)


async def test_what_is_stored_and_never_answered_is_failed() -> None:
    agent = FakeAgent()
    agent.gate.clear()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        sending = asyncio.create_task(Driver(fleet, 30).send(instance, "hello", None, ignored))
        await eventually_async(lambda: instance.state_name() == "busy")
        (session_id,) = agent.statuses
        del agent.conversations[session_id][-1]
        agent.statuses.clear()
        agent.tell(None)
        outcome = await sending
        assert outcome.result == "failed"
        assert "nothing answers it" in outcome.problem


# -- how it ended ----------------------------------------------------------------------------------------------------


async def sent_unheard(agent: FakeAgent) -> Outcome:
    """Send a message whose end must be looked up, since events may be missing."""
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        agent.gate.clear()
        sending = asyncio.create_task(Driver(fleet, 30).send(instance, "hello", None, ignored))
        await eventually_async(lambda: instance.state_name() == "busy")
        version = instance.version
        agent.tell(None)
        await eventually_async(lambda: instance.version > version, "the gap")
        agent.gate.set()
        return await sending


async def test_an_answer_to_two_messages_together_is_called_that() -> None:
    agent = FakeAgent()
    agent.extra = TurnRecord(is_stored=True, is_shared=True)
    outcome = await sent_unheard(agent)
    assert (outcome.result, outcome.text) == ("done", "echo: hello")
    assert "answered both together" in outcome.note


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (TurnRecord(is_stored=True, problem="out of credit"), "out of credit"),
        (TurnRecord(is_stored=True, is_interrupted=True), "it was interrupted"),
    ],
)
async def test_a_turn_that_its_records_call_broken_is_failed_with_what_was_said(
    record: TurnRecord, said: str
) -> None:
    agent = FakeAgent()
    agent.extra = record
    outcome = await sent_unheard(agent)
    assert (outcome.result, outcome.text) == ("failed", "echo: hello")
    assert said in outcome.problem


async def test_that_the_agent_is_gone_from_its_machine_is_said_at_once() -> None:
    agent = FakeAgent()
    agent.gate.clear()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        sending = asyncio.create_task(Driver(fleet, 300).send(instance, "hello", None, ignored))
        await eventually_async(lambda: instance.state_name() == "busy")
        agent.fail(AgentGone("OpenCode does not answer there"))
        outcome = await sending
        assert outcome.result == "failed"
        assert "OpenCode does not run there any more" in outcome.problem


async def test_a_line_that_breaks_in_the_middle_of_a_turn_and_comes_back_loses_nothing() -> None:
    agent = FakeAgent()
    agent.gate.clear()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        sending = asyncio.create_task(Driver(fleet, 60).send(instance, "hello", None, ignored))
        await eventually_async(lambda: instance.state_name() == "busy")
        agent.fail(Unreachable("the line broke"))
        await eventually_async(lambda: not instance.connected.is_set())
        agent.gate.set()
        await eventually_async(lambda: not agent.statuses, "its end, unheard")
        agent.trouble = None
        outcome = await sending
        assert (outcome.result, outcome.text) == ("done", "echo: hello")


# -- very many -------------------------------------------------------------------------------------------------------


async def test_sixty_messages_at_once_have_sixty_answers() -> None:
    agent = FakeAgent()
    agent.gate.clear()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 60)
        sending = [asyncio.create_task(driver.send(instance, f"no. {n}", "new", ignored)) for n in range(60)]
        await eventually_async(lambda: len(instance.state.statuses) == 60, "all at once", within=60)
        agent.gate.set()
        outcomes = await asyncio.gather(*sending)
        assert [(each.result, each.text) for each in outcomes] == [("done", f"echo: no. {n}") for n in range(60)]
        assert len({each.session_id for each in outcomes}) == 60


async def test_every_ask_of_seventy_sessions_is_listed_and_can_be_settled() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 60)
        outcomes = await asyncio.gather(*(driver.send(instance, f"ask {n}", "new", ignored) for n in range(70)))
        asks = await driver.asks(instance)
        assert {ask.id for ask in asks} == {each.asks[0].id for each in outcomes}
        assert len(asks) == 70
        assert (await driver.reply(instance, asks[-1].id, "once", ignored, seen)).result == "done"
