"""`send` with `abort`: it stops what runs, says so only once it has stopped, and then sends what comes with it."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def send(client: RelayClient, message: str, **more: object) -> Answer:
    return await client.call("send", on_progress=None, instance="laptop", message=message, **more)


async def abort(client: RelayClient, **more: object) -> Answer:
    return await client.call("send", on_progress=None, instance="laptop", abort=True, **more)


async def begin(client: RelayClient, model: ScriptedModel, gate: str) -> asyncio.Task[Answer]:
    """Send to a new session what stays at a gate, and wait until it is there."""
    turn = asyncio.create_task(send(client, f"GATE:{gate}", session="new"))
    await eventually_async(lambda: model.reached(gate), within=30)
    return turn


async def test_where_nothing_runs_it_says_so(client: RelayClient) -> None:
    answer = await abort(client)
    assert not answer.is_error
    assert answer.text == "“laptop”: nothing ran, so nothing was stopped."


async def test_what_runs_is_stopped_before_the_answer_and_its_sender_learns_it(
    client: RelayClient, laptop: Driven, model: ScriptedModel
) -> None:
    turn = await begin(client, model, "abort-plain")
    stopped = await abort(client)
    assert laptop.running() == []
    ended = await turn
    assert stopped.structured == {
        "instance": "laptop",
        "session": ended.structured["session"],
        "result": "stopped",
    }
    assert ended.structured["result"] == "failed"
    assert laptop.stopped in ended.structured["problem"]


async def test_a_message_that_comes_with_it_is_sent_after_the_stop_in_the_same_session(
    client: RelayClient, model: ScriptedModel
) -> None:
    turn = await begin(client, model, "abort-and-send")
    answer = await abort(client, message="something else")
    assert answer.structured["result"] == "done"
    assert answer.structured["text"] == "echo: something else"
    assert answer.structured["session"] == (await turn).structured["session"]
    assert len(model.turns("something else")) == 1


async def test_several_running_sessions_need_a_name_and_nothing_is_stopped_without(
    client: RelayClient, laptop: Driven, model: ScriptedModel
) -> None:
    turns = [await begin(client, model, f"abort-several-{number}") for number in range(2)]
    both = sorted(laptop.running())
    refused = await abort(client, message="unsent with two running")
    assert refused.is_error
    assert all(session in refused.text for session in both)
    assert "nothing was stopped" in refused.text
    assert sorted(laptop.running()) == both
    assert not model.turns("unsent with two running")

    one, other = both
    assert (await abort(client, session=one)).structured["session"] == one
    assert laptop.running() == [other]
    assert (await abort(client, session=one)).structured["result"] == "idle"
    assert laptop.running() == [other]
    await abort(client, session=other)
    assert [(await turn).structured["result"] for turn in turns] == ["failed", "failed"]


async def test_subagents_and_their_tools_are_stopped_with_their_root(
    client: RelayClient, laptop: Driven, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    asked = await send(client, f"[TASK:{{BASH:echo $$ > {pid_file}; sleep 1000}}]", session="new")
    (ask,) = asked.structured["asks"]
    turn = asyncio.create_task(
        client.call("reply", on_progress=None, instance="laptop", ask=ask["id"], answer="once")
    )
    pid = int(await eventually_async(lambda: pid_file.exists() and pid_file.read_text().strip(), within=30))
    assert len(laptop.running()) == 2
    stopped = await abort(client)
    assert stopped.structured["session"] == asked.structured["session"]
    assert laptop.running() == []
    eventually(lambda: not is_alive(pid), "the end of the subagent's tool")
    # A root whose subagent is stopped may end its turn with a last word before it is stopped as well.
    assert (await turn).structured["result"] in {"failed", "done"}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_what_a_stopped_turn_had_asked_is_not_offered_afterwards(
    client: RelayClient, laptop: Driven, model: ScriptedModel
) -> None:
    for message in ("[BASH:echo stale]", "[ASK:stale?]"):
        asked = await send(client, message, session="new")
        (ask,) = asked.structured["asks"]
        await abort(client)
        listed = await client.call("reply", instance="laptop")
        assert listed.text == "“laptop” waits for nothing."
        # Nor does it come up again when that session runs anew.
        gate = f"abort-stale-{ask['kind']}"
        turn = asyncio.create_task(send(client, f"GATE:{gate}", session=asked.structured["session"]))
        await eventually_async(partial(model.reached, gate), within=30)
        assert (await client.call("reply", instance="laptop")).text == "“laptop” waits for nothing."
        refused = await client.call("reply", instance="laptop", ask=ask["id"], answer="once")
        assert refused.is_error
        model.release(gate)
        assert (await turn).structured["result"] == "done"
    assert laptop.asks() == []


async def test_several_asks_of_one_turn_end_with_it_and_none_of_them_runs(
    client: RelayClient, laptop: Driven
) -> None:
    commands = " ".join(f"[BASH:echo {number} >> stopped.txt]" for number in range(3))
    asked = await send(client, f"PARALLEL {commands}", session="new")
    await eventually_async(lambda: len(laptop.asks()) == 3, within=30)
    asks = laptop.asks()
    stopped = await abort(client)
    assert (stopped.structured["session"], stopped.structured["result"]) == (asked.structured["session"], "stopped")
    assert (await client.call("reply", instance="laptop")).text == "“laptop” waits for nothing."
    assert (await client.call("inbox")).structured["asks"] == []
    refused = await client.call("reply", on_progress=None, instance="laptop", ask=asks, answer="once")
    assert {row["result"] for row in refused.structured["settled"]} == {"elsewhere"}, refused.text
    assert laptop.running() == []
    assert not (laptop.directory / "stopped.txt").exists()


async def shows(client: RelayClient, text: str) -> bool:
    return f"echo: {text}" in (await client.call("read", instance="laptop")).text


async def test_a_turn_that_somebody_stops_at_the_screen_ends_with_that_reason(
    client: RelayClient, laptop: Driven
) -> None:
    turn = asyncio.create_task(send(client, "some words GATE:abort-elsewhere", session="new"))
    await eventually_async(lambda: shows(client, "some words"), within=30)
    (session,) = laptop.running()
    laptop.stop(session)
    ended = await turn
    assert ended.structured["result"] == "failed"
    assert laptop.stopped in ended.structured["problem"]
    assert ended.structured["text"].startswith("echo: some words")
