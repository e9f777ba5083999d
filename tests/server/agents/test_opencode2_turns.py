"""Turns of a real OpenCode 2, as its events and its records tell them in the fleet's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_fleet.errors import NotFound, Refused, Rejected
from opencode_fleet.events import AnswerChanged, PromptTaken, StatusChanged, TextChanged, ToolChanged, TurnFailed
from opencode_fleet.model import Prompt
from opencode_fleet.prompt_ids import new_prompt_id
from support.opencodes.connected import WITHIN, listening, post
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_fleet.agents.opencode2 import OpenCode2
    from support.opencodes.opencode2 import Service2
    from support.opencodes.scripted_model import ScriptedModel


async def test_a_turn_is_told_by_events_and_by_records_alike(agent: OpenCode2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        prompt = await post(agent, session.id, "hello THINK")
        await heard.until_idle(session.id)

    assert [event.prompt_id for event in heard.of(PromptTaken, session.id)] == [prompt.id]
    answers = heard.of(AnswerChanged, session.id)
    assert [(answer.ended, answer.prompt_id) for answer in answers] == [("", prompt.id), ("well", prompt.id)]
    texts = heard.of(TextChanged, session.id)
    assert [text.text for text in texts if text.is_whole] == ["echo: hello THINK"]
    assert "".join(text.text for text in texts if not text.is_whole) == "echo: hello THINK"
    assert heard.of(StatusChanged, session.id)[-1].status is None

    record = await agent.turn(session.id, prompt.id)
    assert record.is_stored
    assert not record.is_queued
    assert not record.is_shared
    assert not record.is_interrupted
    assert record.problem == ""
    assert [answer.text for answer in record.answers] == ["echo: hello THINK"]
    user, answer = await agent.messages(session.id, 10)
    assert (user.id, user.role, user.text) == (prompt.id, "user", "hello THINK")
    assert (answer.role, answer.ended, answer.answers, answer.model) == ("assistant", "well", prompt.id, "fake/fake")
    assert [part.kind for part in answer.parts] == ["reasoning", "text"]
    # What streams and what is stored are told to be the same part.
    assert {text.part_id for text in texts} == {answer.parts[1].id}


async def test_the_newest_messages_are_returned_however_many_there_are(agent: OpenCode2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        for number in range(3):
            await post(agent, session.id, f"number {number}")
            await heard.until_idle(session.id)
            heard.events.clear()
    messages = await agent.messages(session.id, 3)
    assert [message.text for message in messages] == ["echo: number 1", "number 2", "echo: number 2"]


async def test_a_prompt_that_comes_in_a_turn_is_queued_and_answered_by_itself(
    agent: OpenCode2, tmp_path: Path, model: ScriptedModel
) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        first = await post(agent, session.id, "first GATE:opencode2-queue end")
        await eventually_async(lambda: model.reached("opencode2-queue"), "the model", within=WITHIN)
        second = await post(agent, session.id, "second")
        waiting = await agent.turn(session.id, second.id)
        model.release("opencode2-queue")
        await heard.until_idle(session.id)
    assert waiting.is_queued
    assert not waiting.is_stored
    record = await agent.turn(session.id, first.id)
    assert [answer.text for answer in record.answers] == ["echo: first  end"]
    assert not record.is_shared
    assert [answer.text for answer in (await agent.turn(session.id, second.id)).answers] == ["echo: second"]


async def test_a_prompt_that_joins_a_turn_between_two_steps_shares_its_answer(
    agent: OpenCode2, tmp_path: Path
) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        first = await post(agent, session.id, "[BASH:echo joined]")
        (ask,) = await eventually_async(lambda: _asks(agent), "the ask", within=WITHIN)
        second = await post(agent, session.id, "and this")
        await agent.reply(ask, "once", None)
        await heard.until_idle(session.id)
    record = await agent.turn(session.id, first.id)
    assert record.is_shared
    assert [answer.ended for answer in record.answers] == ["for-tools", "well"]
    assert (await agent.turn(session.id, second.id)).answers == (record.answers[-1],), (
        "the second prompt's answer is the one after it"
    )


async def test_a_tool_call_is_told_with_what_it_is_about(agent: OpenCode2, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("some words\n")
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        await post(agent, session.id, "[READ:notes.txt]")
        await heard.until_idle(session.id)
    assert [event.call for event in heard.of(ToolChanged, session.id)] == ["read", "read notes.txt", ""]
    ends = [event.ended for event in heard.of(AnswerChanged, session.id)]
    assert ends == ["", "for-tools", "", "well"]
    called = (await agent.messages(session.id, 3))[1]
    (call,) = [part.call for part in called.parts if part.call]
    assert (call.name, call.title, call.status) == ("read", "notes.txt", "completed")
    assert "some words" in call.output


async def test_the_same_prompt_posted_again_is_one_prompt_and_another_text_is_refused(
    agent: OpenCode2, tmp_path: Path, model: ScriptedModel
) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        prompt = await post(agent, session.id, "say it once")
        await agent.prompt(prompt)
        await heard.until_idle(session.id)
        with pytest.raises(Refused, match="nothing was sent"):
            await agent.prompt(Prompt(session.id, prompt.id, "say another thing"))
    assert len(model.turns("say it once")) == 1
    assert model.turns("say another thing") == []


async def test_an_interrupted_turn_is_told_as_such(agent: OpenCode2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        prompt = await post(agent, session.id, "begun GATE:opencode2-interrupt")
        await heard.first(TextChanged, lambda event: event.session_id == session.id)
        await agent.interrupt(session.id)
        await heard.until_idle(session.id)
        await agent.interrupt(session.id)  # nothing happens where nothing runs
    record = await agent.turn(session.id, prompt.id)
    assert record.is_interrupted
    assert record.answers[-1].text.startswith("echo: begun")
    assert record.answers[-1].error == "it was interrupted"
    assert heard.of(TurnFailed, session.id) == []


async def test_an_interrupt_ends_subagents_too(agent: OpenCode2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        await post(agent, session.id, "[TASK:{BASH:echo never}]")
        (ask,) = await eventually_async(lambda: _asks(agent), "the subagent's ask", within=WITHIN)
        assert ask.session_id != session.id
        await agent.interrupt(session.id)
        await heard.until_idle(session.id)
        await heard.until_idle(ask.session_id)
    runs = await agent.runs()
    assert runs.statuses == {}
    assert runs.asks == []


async def test_a_model_that_fails_for_a_while_is_told_as_asked_again(
    agent: OpenCode2, tmp_path: Path, model: ScriptedModel
) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        prompt = await post(agent, session.id, "FAIL503 GATE:opencode2-retry")
        told = await heard.first(
            StatusChanged, lambda event: event.status is not None and event.status.kind == "retry"
        )
        during = (await agent.messages(session.id, 1))[-1]
        model.release("opencode2-retry")
        await heard.until_idle(session.id)
    assert told.status is not None
    assert told.status.attempt >= 1
    assert "scripted failure 503" in told.status.message
    assert "scripted failure 503" in during.retry
    assert during.error == ""
    assert during.completed is None
    kinds = [event.status.kind if event.status else "idle" for event in heard.of(StatusChanged, session.id)]
    assert kinds[0] == "busy"
    assert kinds[-2:] == ["busy", "idle"], "what was asked again is busy again"
    record = await agent.turn(session.id, prompt.id)
    assert record.answers[-1].ended == "well"
    assert heard.of(TurnFailed, session.id) == []


async def test_a_model_that_refuses_fails_the_turn_with_its_reason(agent: OpenCode2, tmp_path: Path) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        prompt = await post(agent, session.id, "FAIL400 please")
        await heard.until_idle(session.id)
    (failed,) = heard.of(TurnFailed, session.id)
    assert "scripted failure 400" in failed.problem
    record = await agent.turn(session.id, prompt.id)
    assert "scripted failure 400" in record.answers[-1].error
    assert record.answers[-1].ended == "failed"
    assert not record.is_interrupted


async def test_the_summary_of_a_compaction_is_a_note_and_no_answer(
    agent: OpenCode2, service2: Service2, tmp_path: Path
) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        prompt = await post(agent, session.id, "before the summary")
        await heard.until_idle(session.id)
        heard.events.clear()
        with service2.client() as client:
            client.post(f"/api/session/{session.id}/compact", json={}).raise_for_status()
        await heard.until_idle(session.id)
    assert heard.of(PromptTaken, session.id) == [], "a compaction in the inbox is no prompt"
    summary = (await agent.messages(session.id, 1))[-1]
    assert summary.is_summary
    assert summary.role == "note"
    record = await agent.turn(session.id, prompt.id)
    assert [answer.text for answer in record.answers] == ["echo: before the summary"]


async def test_a_prompt_keeps_the_agent_that_the_session_is_in(
    agent: OpenCode2, service2: Service2, tmp_path: Path
) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        with service2.client() as client:
            client.post(f"/api/session/{session.id}/agent", json={"agent": "plan"}).raise_for_status()
        await post(agent, session.id, "still planning")
        await heard.until_idle(session.id)
    assert (await agent.session(session.id)).agent == "plan"
    switched, *_, user, answer = await agent.messages(session.id, 10)
    assert (switched.role, switched.text) == ("note", "the agent is plan from here on")
    assert (user.text, answer.agent) == ("still planning", "plan")


async def test_a_prompt_that_cannot_begin_stays_queued_and_says_why(
    agent: OpenCode2, service2: Service2, tmp_path: Path
) -> None:
    session = await agent.create(str(tmp_path))
    async with listening(agent) as heard:
        with service2.client() as client:
            client.post(f"/api/session/{session.id}/agent", json={"agent": "nonesuch"}).raise_for_status()
        prompt = await post(agent, session.id, "never begun")
        await heard.until_idle(session.id)
    assert len(heard.of(TurnFailed, session.id)) == 1
    record = await agent.turn(session.id, prompt.id)
    assert record.is_queued
    assert "check the session's agent" in record.problem


async def test_a_prompt_that_lies_in_an_idle_session_is_queued_until_it_is_posted_again(
    agent: OpenCode2, service2: Service2, tmp_path: Path
) -> None:
    session = await agent.create(str(tmp_path))
    prompt = Prompt(session.id, new_prompt_id(), "left lying")
    async with listening(agent) as heard:
        with service2.client() as client:
            body = {"id": prompt.id, "text": prompt.text, "resume": False}
            client.post(f"/api/session/{session.id}/prompt", json=body).raise_for_status()
        record = await agent.turn(session.id, prompt.id)
        assert record.is_queued
        assert not record.problem
        assert not record.is_interrupted
        await agent.prompt(prompt)
        await heard.until_idle(session.id)
    assert [answer.text for answer in (await agent.turn(session.id, prompt.id)).answers] == ["echo: left lying"]


async def test_what_is_not_there_is_told_as_such(agent: OpenCode2, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await agent.session("ses_nonesuch")
    session = await agent.create(str(tmp_path))
    assert not (await agent.turn(session.id, "msg_nonesuch")).is_stored
    with pytest.raises(Rejected, match="is gone on that machine"):
        await agent.create(str(tmp_path / "nonesuch"))


async def _asks(agent: OpenCode2) -> list[object]:
    return list((await agent.runs()).asks)
