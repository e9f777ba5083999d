"""A line that breaks in mid-turn: the turn is picked up again, and no message is ever sent twice."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from support.chat.mcp_client import relay_client
from support.fleet.registry import register, registration
from support.line.fake_broken_line import BrokenLine
from support.opencodes.driven import Driven1
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.chat.mcp_client import Answer, Progress, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.opencode import OpenCodeHome
    from support.opencodes.scripted_model import ScriptedModel

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("client")]


@asynccontextmanager
async def over_a_line(
    driven: Driven, registry_dir: Path, *, send_timeout: float = 60
) -> AsyncIterator[tuple[RelayClient, BrokenLine]]:
    """Register `driven` as `far`, reached over a line, with a warm server before it."""
    async with BrokenLine(driven.port) as line:
        driven.register_at(registry_dir, "far", line.port)
        async with relay_client(
            registry_dir, env={"SEND_TIMEOUT_MS": str(int(send_timeout * 1000)), "DISCOVERY_INTERVAL_MS": "3600000"}
        ) as client:
            await eventually_async(lambda: is_in(client, "idle"))
            yield client, line


async def is_in(client: RelayClient, state: str) -> bool:
    rows = (await client.call("instances")).structured["instances"]
    return [row["state"] for row in rows] == [state]


async def send(client: RelayClient, message: str, **more: object) -> Answer:
    return await client.call("send", on_progress=None, instance="far", message=message, session="new", **more)


@pytest.mark.parametrize("what", ["request", "answer"])
async def test_a_message_whose_way_or_answer_was_lost_is_stored_exactly_once(
    laptop: Driven, registry_dir: Path, model: ScriptedModel, what: str
) -> None:
    async with over_a_line(laptop, registry_dir) as (client, line):
        lose = line.lose_request if what == "request" else line.lose_answer
        lose(laptop.prompt_path)
        answer = await send(client, f"lost-{what}")
        assert line.lost.is_set()
        assert answer.structured["result"] == "done"
        assert answer.structured["text"] == f"echo: lost-{what}"
        assert laptop.prompts(answer.structured["session"]) == [f"lost-{what}"]
        # It may have been posted again, as OpenCode answers before it stores: with its own id it is the same message.
        assert len(model.turns(f"lost-{what}")) == 1
        assert len(model.turns(f"lost-{what}")) == 1


async def test_a_turn_goes_on_after_the_line_was_cut_and_mended(
    laptop: Driven, registry_dir: Path, model: ScriptedModel
) -> None:
    async with over_a_line(laptop, registry_dir) as (client, line):
        turn = asyncio.create_task(send(client, "before the cut GATE:line-cut after the cut"))
        await eventually_async(lambda: model.reached("line-cut"), within=30)
        await line.cut()
        await eventually_async(lambda: is_in(client, "offline"))
        await line.mend()
        await eventually_async(lambda: is_in(client, "busy"))
        model.release("line-cut")
        answer = await turn
        assert answer.structured["text"] == "echo: before the cut  after the cut"
        assert len(model.turns("line-cut")) == 1


async def test_a_turn_that_ended_while_the_line_was_cut_is_told_once_it_is_mended(
    laptop: Driven, registry_dir: Path, model: ScriptedModel
) -> None:
    async with over_a_line(laptop, registry_dir) as (client, line):
        turn = asyncio.create_task(send(client, "begun GATE:line-missed-end ended"))
        await eventually_async(lambda: model.reached("line-missed-end"), within=30)
        await line.cut()
        model.release("line-missed-end")
        await eventually_async(lambda: laptop.running() == [])
        await line.mend()
        answer = await turn
        assert answer.structured["result"] == "done"
        assert answer.structured["text"] == "echo: begun  ended"
        assert len(model.turns("line-missed-end")) == 1


async def test_a_turn_that_was_stopped_at_the_desk_while_the_line_was_cut_is_told_as_stopped(
    laptop: Driven, registry_dir: Path, model: ScriptedModel
) -> None:
    async with over_a_line(laptop, registry_dir, send_timeout=2) as (client, line):
        cursor = (await client.call("inbox")).structured["cursor"]
        # Cut before anything is heard of it, so that its records alone tell of it.
        line.lose_answer(laptop.prompt_path)
        turn = asyncio.create_task(send(client, "begun GATE:line-stopped ended"))
        await line.lost.wait()
        await line.cut()
        await eventually_async(lambda: model.reached("line-stopped"), within=30)
        (session,) = laptop.running()
        assert "it may have arrived" in (await turn).text
        laptop.stop(session)
        await eventually_async(lambda: laptop.running() == [])
        await line.mend()

        async def ends() -> list[dict[str, Any]]:
            # A call waits no longer than `send` does here.
            return list((await client.call("inbox", cursor=cursor)).structured["ended"])

        (end,) = await eventually_async(ends, within=60)
        assert (end["result"], end["session"]) == ("stopped", session), end


async def test_an_ask_that_came_while_the_line_was_cut_is_told_once_it_is_mended(
    laptop: Driven, registry_dir: Path, model: ScriptedModel
) -> None:
    async with over_a_line(laptop, registry_dir) as (client, line):
        turn = asyncio.create_task(send(client, "[TASK:{BASH:echo missed}]"))
        await eventually_async(lambda: model.turns("[TASK:{BASH:echo missed}]"), within=30)
        await line.cut()
        await eventually_async(laptop.asks)
        await line.mend()
        answer = await turn
        assert answer.structured["result"] == "needs-permission"
        assert "echo missed" in answer.structured["asks"][0]["summary"]
        assert answer.structured["asks"][0]["session"] == answer.structured["session"]


async def test_a_turn_follows_its_instance_to_another_port(
    laptop: Driven, registry_dir: Path, model: ScriptedModel
) -> None:
    async with over_a_line(laptop, registry_dir) as (client, line):
        turn = asyncio.create_task(send(client, "moving GATE:line-moved moved"))
        await eventually_async(lambda: model.reached("line-moved"), within=30)
        await line.cut()
        async with BrokenLine(laptop.port) as other:
            laptop.register_at(registry_dir, "far", other.port)
            await eventually_async(lambda: is_in(client, "busy"))
            model.release("line-moved")
            assert (await turn).structured["text"] == "echo: moving  moved"
        assert len(model.turns("line-moved")) == 1


async def test_a_half_open_line_is_given_up_and_the_turn_picked_up_again(
    laptop: Driven, registry_dir: Path, model: ScriptedModel
) -> None:
    async with over_a_line(laptop, registry_dir) as (client, line):
        turn = asyncio.create_task(send(client, "held GATE:line-stalled freed"))
        await eventually_async(lambda: model.reached("line-stalled"), within=30)
        line.stall()
        model.release("line-stalled")
        # OpenCode 2 sends a heartbeat every 15 s, so that its silence is given 40.
        await eventually_async(lambda: is_in(client, "unresponsive"), within=90)
        line.flow()
        assert (await turn).structured["text"] == "echo: held  freed"
        assert len(model.turns("line-stalled")) == 1


async def test_nothing_is_sent_to_an_instance_that_is_offline(
    laptop: Driven, registry_dir: Path, model: ScriptedModel
) -> None:
    async with over_a_line(laptop, registry_dir) as (client, line):
        await send(client, "heard of before")
        await line.cut()
        await eventually_async(lambda: is_in(client, "offline"))
        refused = await send(client, "to nobody")
        assert refused.is_error
        assert "“far” is offline since " in refused.text
        assert "nothing was sent" in refused.text
        assert ", offline; this was known at 20" in (await client.call("read", instance="far")).text
        await line.mend()
        await eventually_async(lambda: is_in(client, "idle"))
        assert not model.turns("to nobody")


async def test_a_line_that_does_not_come_back_says_that_the_message_may_have_arrived(
    laptop: Driven, registry_dir: Path
) -> None:
    async with over_a_line(laptop, registry_dir, send_timeout=2) as (client, line):
        line.lose_answer(laptop.prompt_path, and_line=True)
        answer = await send(client, "perhaps arrived")
        assert line.lost.is_set()
        assert answer.is_error
        assert "it may have arrived" in answer.text
        assert "before sending it again" in answer.text


async def test_a_turn_whose_line_stays_cut_is_lost_and_its_caller_need_not_wait(
    laptop: Driven, registry_dir: Path
) -> None:
    async with over_a_line(laptop, registry_dir) as (client, line):
        seen: list[Progress] = []
        message = "some words GATE:line-stays-cut"
        turn = asyncio.create_task(
            client.call("send", on_progress=seen.append, instance="far", message=message, session="new")
        )
        await eventually_async(lambda: "some words" in "".join(note.message for note in seen), within=30)
        await line.cut()
        answer = await turn
        assert answer.structured["result"] == "lost"
        assert answer.structured["text"].startswith("echo: some words")
        assert "nothing listens there any more" in answer.structured["problem"]
        assert "nothing is heard of it any more" in answer.text


@pytest.mark.generations(1)  # OpenCode 2 goes on with it: see `test_opencode2`
async def test_a_goodbye_in_mid_turn_ends_the_call(laptop: Driven, registry_dir: Path, model: ScriptedModel) -> None:
    async with over_a_line(laptop, registry_dir) as (client, line):
        turn = asyncio.create_task(send(client, "some words GATE:line-goodbye"))
        await eventually_async(lambda: model.reached("line-goodbye"), within=30)
        register(registry_dir, registration("far", line.port, closedAt="2026-11-24T17:00:00Z"))
        answer = await turn
        assert answer.structured["result"] == "failed"
        assert "OpenCode was closed on its machine" in answer.structured["problem"]
        assert (await client.call("instances")).structured["instances"] == []


@pytest.mark.generations(1)  # OpenCode 2 resumes it: see `test_opencode2`
async def test_an_opencode_that_crashed_in_mid_turn_and_came_back_says_that_it_was_interrupted(
    home: OpenCodeHome, tmp_path: Path, model: ScriptedModel
) -> None:
    with Driven1(home, tmp_path / "crash") as driven:
        driven.register_at(tmp_path / "registry", "far", driven.port)
        async with relay_client(tmp_path / "registry", env={"DISCOVERY_INTERVAL_MS": "3600000"}) as client:
            # It was started a moment ago.
            await eventually_async(lambda: is_in(client, "idle"))
            turn = asyncio.create_task(send(client, "half a GATE:line-crash"))
            await eventually_async(lambda: model.reached("line-crash"))
            await asyncio.to_thread(driven.kill)
            await eventually_async(lambda: is_in(client, "offline"))
            await asyncio.to_thread(driven.served.start)
            driven.register_at(tmp_path / "registry", "far", driven.port)
            answer = await turn
            assert answer.structured["result"] == "failed"
            assert "interrupted" in answer.structured["problem"]
            assert (await send(client, "and on it goes")).structured["result"] == "done"
            assert len(model.turns("line-crash")) == 1
