"""`send` against real OpenCode: the answer, how it streams, everything that ends a turn, and what is refused."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.chat.mcp_client import Answer, Era, Progress, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def send(client: RelayClient, message: str, **more: object) -> Answer:
    return await client.call("send", on_progress=None, instance="laptop", message=message, **more)


async def state(client: RelayClient) -> str:
    (row,) = (await client.call("instances")).structured["instances"]
    return str(row["state"])


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_a_message_is_answered_and_its_text_streams_before_the_turn_ends(
    laptop: Driven, model: ScriptedModel, era: Era
) -> None:
    gate = f"send-first-{era}"
    seen: list[Progress] = []
    async with relay_client(laptop.registry, era=era) as client:
        message = f"several plain words GATE:{gate} last"
        turn = asyncio.create_task(
            client.call("send", on_progress=seen.append, instance="laptop", message=message, session="new")
        )
        await eventually_async(lambda: told(seen) == "echo: several plain words ", within=30)
        model.release(gate)
        answer = await turn
        assert not answer.is_error
        assert answer.structured["result"] == "done"
        assert answer.structured["text"] == "echo: several plain words  last"
        assert answer.structured["text"].startswith(told(seen))
        assert answer.structured["text"] in answer.text


def told(progress: Iterable[Progress]) -> str:
    """Return all of a turn's text that was told while it ran: what comes right before its end is not."""
    return "".join(note.message for note in progress)


async def test_text_is_told_at_most_ten_times_a_second_and_none_of_it_is_lost(client: RelayClient) -> None:
    began = time.monotonic()
    answer = await send(client, "SLOW:100:0.01", session="new")
    lasted = time.monotonic() - began
    assert answer.structured["text"] == "".join(f"word{number} " for number in range(1, 101))
    assert answer.structured["text"].startswith(told(answer.progress))
    assert len(answer.progress) <= lasted / 0.1 + 1


async def test_reasoning_is_never_shown(client: RelayClient) -> None:
    answer = await send(client, "THINK about it", session="new")
    assert answer.structured["text"] == "echo: THINK about it"
    read = await client.call("read", instance="laptop")
    for text in (answer.text, read.text, *(note.message for note in answer.progress)):
        assert "let me think" not in text


async def test_long_text_keeps_its_end_and_says_what_was_cut(client: RelayClient) -> None:
    answer = await send(client, "BIG:40", session="new")
    assert len(answer.text) <= 12_000
    assert "characters cut; `read` session s" in answer.text
    assert answer.structured["text"].endswith("0123456789abcde\n")


async def test_an_error_of_the_model_is_told_with_its_reason(client: RelayClient, laptop: Driven) -> None:
    answer = await send(client, "FAIL400", session="new")
    assert answer.structured["result"] == "failed"
    assert answer.structured["problem"] == f"{laptop.failed}scripted failure 400"
    assert (await send(client, "after the failure")).structured["text"] == "echo: after the failure"


async def test_an_unknown_model_that_a_session_remembers_fails_the_turn(client: RelayClient, laptop: Driven) -> None:
    session = laptop.create_with_model("no-such-model")
    answer = await send(client, "to a missing model", session=session)
    assert answer.structured["result"] == "failed"
    assert "no-such-model" in answer.structured["problem"]


async def test_a_passing_failure_of_the_models_service_is_waited_out(
    client: RelayClient, model: ScriptedModel
) -> None:
    turn = asyncio.create_task(send(client, "FAIL503 GATE:send-overloaded RETRYAFTER", session="new"))
    await eventually_async(lambda: state_is(client, "retry"), within=30)
    model.release("send-overloaded")
    assert (await turn).structured["result"] == "done"


@pytest.mark.generations(1)
async def test_a_model_that_breaks_off_again_and_again_is_stopped(client: RelayClient, model: ScriptedModel) -> None:
    answer = await send(client, "DROPMID broken-model", session="new")
    assert answer.structured["result"] == "failed"
    assert "the model broke off 5 answers in a row" in answer.structured["problem"]
    await eventually_async(lambda: state_is(client, "idle"))
    count = len(model.turns("broken-model"))
    assert (await send(client, "unbroken")).structured["result"] == "done"
    assert len(model.turns("broken-model")) == count


@pytest.mark.generations(2)
async def test_a_model_that_breaks_off_is_asked_to_go_on_and_both_parts_are_the_answer(client: RelayClient) -> None:
    answer = await send(client, "DROPMID broken-once", session="new")
    assert answer.structured["result"] == "done"
    begun, _, further = answer.structured["text"].partition("\n\n")
    assert begun.strip() == "some words"
    assert further.startswith("echo: The previous response was interrupted.")


async def state_is(client: RelayClient, wanted: str) -> bool:
    return await state(client) == wanted


@pytest.mark.parametrize(
    ("message", "result", "wanted"),
    [
        ("[BASH:echo permitted]", "needs-permission", "echo permitted"),
        ("[ASK:which colour?]", "needs-answer", "which colour?"),
        ("[TASK:{BASH:echo subagent}]", "needs-permission", "echo subagent"),
    ],
)
async def test_it_returns_at_once_when_the_agent_needs_a_person(
    client: RelayClient, message: str, result: str, wanted: str
) -> None:
    answer = await send(client, message, session="new")
    assert answer.structured["result"] == result
    (ask,) = answer.structured["asks"]
    assert wanted in ask["summary"]
    assert wanted in answer.text
    assert ask["session"] == answer.structured["session"]
    assert ask["handle"] in answer.text
    (row,) = (await client.call("instances")).structured["instances"]
    assert row["state"] == result
    assert wanted in row["waits_for"]


async def test_a_busy_session_refuses_a_message_and_says_what_it_does(
    client: RelayClient, model: ScriptedModel
) -> None:
    turn = asyncio.create_task(send(client, "writing now GATE:send-busy", session="new"))
    await eventually_async(lambda: model.reached("send-busy"), within=30)
    await eventually_async(lambda: says(client, "it is writing", "writing now"))
    refused = await send(client, "unwanted-beside-it")
    assert refused.is_error
    assert "nothing was sent" in refused.text
    beside = await send(client, "wanted-beside-it", session="new")
    assert beside.structured["result"] == "done"
    model.release("send-busy")
    assert (await turn).structured["result"] == "done"
    assert not model.turns("unwanted-beside-it")


async def says(client: RelayClient, *words: str) -> bool:
    """Send to a busy session, and tell whether the refusal says all of `words`."""
    text = (await send(client, "unwanted-beside-it")).text
    return all(word in text for word in words)


async def test_a_session_that_waits_for_a_person_refuses_a_message_and_points_to_reply(client: RelayClient) -> None:
    await send(client, "[BASH:echo waits]", session="new")
    refused = await send(client, "too soon")
    assert refused.is_error
    assert "see `reply`" in refused.text


async def test_a_session_that_retries_says_so_when_it_refuses(laptop: Driven, model: ScriptedModel) -> None:
    async with relay_client(laptop.registry, env={"SEND_TIMEOUT_MS": "1000"}) as client:
        running = await send(client, "FAIL503 for-ever-overloaded", session="new")
        assert running.structured["result"] == "running"
        await eventually_async(lambda: state_is(client, "retry"))
        # While it tries again, it is busy for a moment, and refuses with other words.
        await eventually_async(
            lambda: says(client, "the model's service failed", "scripted failure 503", "nothing was sent")
        )
        assert model.turns("for-ever-overloaded")
        assert not model.turns("unwanted-beside-it")


async def test_after_its_timeout_it_says_what_there_is_and_read_picks_it_up(
    laptop: Driven, model: ScriptedModel
) -> None:
    # Long enough for the first words to come on a machine that has much else to do.
    async with relay_client(laptop.registry, env={"SEND_TIMEOUT_MS": "8000"}) as client:
        await send(client, "so that this OpenCode is warm", session="new")
        running = await send(client, "beginning GATE:send-timeout end")
        assert not running.is_error
        assert running.structured["result"] == "running"
        assert running.structured["text"].startswith("echo: beginning")
        assert "do not send the message again" in running.text
        session = running.structured["session"]
        read = await client.call("read", instance="laptop", session=session)
        assert read.structured["state"] == "busy"
        assert read.structured["messages"][-1]["text"] == "echo: beginning  [… being written]"
        model.release("send-timeout")
        await eventually_async(lambda: state_is(client, "idle"))
        read = await client.call("read", instance="laptop", session=session)
        assert read.structured["messages"][-1]["text"] == "echo: beginning  end"
        assert len(model.turns("send-timeout")) == 1


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_when_the_client_cancels_the_agents_work_goes_on(
    laptop: Driven, model: ScriptedModel, era: Era
) -> None:
    gate = f"send-cancel-{era}"
    async with relay_client(laptop.registry, era=era) as client:
        turn = asyncio.create_task(send(client, f"cancelled GATE:{gate} finished", session="new"))
        await eventually_async(lambda: model.reached(gate), within=30)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        await eventually_async(lambda: state_is(client, "busy"))
        model.release(gate)
        await eventually_async(lambda: state_is(client, "idle"))
        read = await client.call("read", instance="laptop")
        assert read.structured["messages"][-1]["text"] == "echo: cancelled  finished"


async def test_of_two_messages_at_once_to_one_session_one_is_refused_and_none_is_sent_twice(
    client: RelayClient, model: ScriptedModel
) -> None:
    await send(client, "so that there is a session", session="new")
    turns = [asyncio.create_task(send(client, f"at-once number {number} GATE:send-at-once")) for number in range(4)]
    # The one that is taken waits at the gate: whenever the others arrive, they find it running.
    await eventually_async(lambda: sum(turn.done() for turn in turns) == 3, within=30)
    model.release("send-at-once")
    answers = await asyncio.gather(*turns)
    assert sorted(answer.is_error for answer in answers) == [False, True, True, True]
    assert len(model.turns("at-once")) == 1


async def test_a_session_that_another_server_keeps_busy_is_not_sent_to(
    client: RelayClient, laptop: Driven, model: ScriptedModel
) -> None:
    async with relay_client(laptop.registry) as other:
        sent = await send(other, "so that both know it", session="new")
        turn = asyncio.create_task(send(client, "GATE:send-two-servers", session=sent.structured["session"]))
        await eventually_async(lambda: model.reached("send-two-servers"), within=30)
        await eventually_async(lambda: state_is(other, "busy"))
        refused = await send(other, "beside the other server")
        assert refused.is_error
        assert "is busy in session" in refused.text
        model.release("send-two-servers")
        assert (await turn).structured["result"] == "done"
        assert not model.turns("beside the other server")


@pytest.mark.parametrize("message", ["", "  \n"])
async def test_an_empty_message_is_refused(client: RelayClient, message: str) -> None:
    refused = await send(client, message)
    assert refused.is_error
    assert refused.text == "`message` is empty; nothing was sent"


async def test_what_a_message_holds_arrives_as_it_is(client: RelayClient, model: ScriptedModel) -> None:
    message = "quotes \" ' ` $HOME \\n, ünïcode 👩\u200d💻,\ttabs\nand lines  "
    await send(client, message, session="new")
    assert [turn.prompt for turn in model.turns("quotes \" ' `")] == [message]


async def test_the_server_ends_with_its_client_even_while_a_turn_runs(laptop: Driven, model: ScriptedModel) -> None:
    async with relay_client(laptop.registry) as client:
        turn = asyncio.create_task(send(client, "GATE:send-left-alone", session="new"))
        await eventually_async(lambda: model.reached("send-left-alone"), within=30)
        turn.cancel()
        stderr = client.stderr
    assert stderr == ""
    model.release("send-left-alone")


async def test_a_session_stays_taken_by_a_message_whose_caller_went_away(
    client: RelayClient, model: ScriptedModel
) -> None:
    first = await send(client, "so that there is a session to cancel in", session="new")
    session = first.structured["session"]
    turn = asyncio.create_task(send(client, "left-behind GATE:send-left-behind", session=session))
    # Cancelled as soon as it is on its way: OpenCode shows the session busy only a moment later.
    await asyncio.sleep(0)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    answer = await send(client, "not-queued behind it", session=session)
    model.release("send-left-behind")
    if answer.is_error:
        assert model.turns("not-queued") == []
    else:  # the first was cancelled before it was sent at all
        assert model.turns("left-behind") == []
    assert len(model.turns("left-behind")) + len(model.turns("not-queued")) <= 1


async def test_a_session_deleted_in_mid_turn_ends_the_turn_with_that_reason(
    client: RelayClient, laptop: Driven, model: ScriptedModel
) -> None:
    turn = asyncio.create_task(send(client, "deleted GATE:send-deleted", session="new"))
    await eventually_async(lambda: model.reached("send-deleted"), within=30)
    (session,) = model.turns("send-deleted")
    laptop.delete(session.session)
    model.release("send-deleted")
    answer = await turn
    assert answer.structured["result"] == "failed"
    assert answer.structured["problem"]
