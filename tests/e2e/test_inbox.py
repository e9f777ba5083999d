"""`inbox` and `wait` before real OpenCode: what happens at the screen is told once, also over a server's restart."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from support.chat.mcp_client import relay_client
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from support.chat.mcp_client import RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def begun(client: RelayClient) -> str:
    """Return the cursor from which on everything is new, once the instance is watched."""

    async def is_watched() -> bool:
        (row,) = (await client.call("instances", filter="laptop")).structured["instances"]
        return bool(row["state"] == "idle")

    await eventually_async(is_watched, "the instance is idle", within=60)
    return str((await client.call("inbox")).structured["cursor"])


async def awaited(client: RelayClient, cursor: str, kind: str) -> dict[str, Any]:
    """Wait until one more row of a kind is told, and return it with the result's cursor."""
    while True:
        told = (await client.call("wait", cursor=cursor)).structured
        cursor = told["cursor"]
        if told[kind]:
            (row,) = told[kind]
            return {**row, "cursor": cursor}


async def test_an_ask_at_the_screen_is_told_settled_by_its_handle_and_the_end_is_told(
    client: RelayClient, laptop: Driven
) -> None:
    cursor = await begun(client)
    session = laptop.create("Fix the login")
    waiting = asyncio.create_task(awaited(client, cursor, "asks"))
    laptop.post(session, "[BASH:echo from-the-screen]")
    ask = await waiting
    assert laptop.asks() == [ask["id"]]
    assert (ask["session"], ask["kind"]) == (session, "permission")
    listed = await client.call("inbox", cursor=cursor)
    assert [row["handle"] for row in listed.structured["asks"]] == [ask["handle"]]
    assert "echo from-the-screen" in listed.text
    settled = await client.call("reply", instance="laptop", ask=ask["handle"], answer="once")
    assert "from-the-screen" in settled.structured["text"]
    end = await awaited(client, ask["cursor"], "ended")
    assert (end["result"], end["session"], end["session_handle"]) == ("done", session, ask["session_handle"])
    assert (await client.call("inbox", cursor=end["cursor"])).structured["ended"] == []


async def test_an_ask_that_is_settled_at_the_screen_waits_no_more(client: RelayClient, laptop: Driven) -> None:
    cursor = await begun(client)
    session = laptop.create()
    laptop.post(session, "[BASH:echo allowed-there]")
    ask = await awaited(client, cursor, "asks")
    laptop.allow(ask["id"])
    await awaited(client, ask["cursor"], "ended")
    assert (await client.call("inbox", cursor=cursor)).structured["asks"] == []


async def test_a_subagent_s_ask_stands_under_its_root(client: RelayClient, laptop: Driven) -> None:
    cursor = await begun(client)
    session = laptop.create()
    laptop.post(session, "[TASK:{BASH:echo from-below}]")
    row = await awaited(client, cursor, "asks")
    while row["summary"].split()[0] != laptop.shell:  # the subagent itself may have to be allowed first
        laptop.allow(row["id"])
        row = await awaited(client, row["cursor"], "asks")
    assert row["session"] == session
    laptop.allow(row["id"])
    end = await awaited(client, row["cursor"], "ended")
    assert (end["session"], end["result"]) == (session, "done")


async def test_a_turn_that_the_model_s_service_refuses_has_failed(client: RelayClient, laptop: Driven) -> None:
    cursor = await begun(client)
    laptop.post(laptop.create(), "FAIL400")
    end = await awaited(client, cursor, "ended")
    assert end["result"] == "failed"
    assert end["problem"]


async def test_a_turn_that_is_stopped_is_neither_done_nor_failed(
    client: RelayClient, laptop: Driven, model: ScriptedModel
) -> None:
    cursor = await begun(client)
    session = laptop.create()
    laptop.post(session, "GATE:stopped-and-told")
    await eventually_async(lambda: model.reached("stopped-and-told"), within=60)
    stopped = await client.call("send", instance="laptop", session=session, abort=True)
    assert stopped.structured["result"] == "stopped"
    end = await awaited(client, cursor, "ended")
    assert (end["session"], end["result"]) == (session, "stopped")


async def test_what_happens_while_no_server_runs_is_told_by_the_next_one(client: RelayClient, laptop: Driven) -> None:
    del client
    asking, ending = laptop.create(), laptop.create()
    async with relay_client(laptop.registry, env={"RELAY_STATE_DIR": f"{laptop.registry}-alone"}) as first:
        cursor = await begun(first)
        laptop.post(ending, "[BASH:echo before]")
        before = await awaited(first, cursor, "asks")
    laptop.allow(before["id"])
    laptop.post(asking, "[BASH:echo meanwhile]")
    eventually(lambda: laptop.running() == [asking] and len(laptop.asks()) == 1, "one ended and one asks", within=60)
    async with relay_client(laptop.registry, env={"RELAY_STATE_DIR": f"{laptop.registry}-alone"}) as second:
        told = {
            "asks": await awaited(second, before["cursor"], "asks"),
            "ended": await awaited(second, before["cursor"], "ended"),
        }
        assert (told["asks"]["session"], told["ended"]["session"]) == (asking, ending)
        listed = (await second.call("inbox", cursor=before["cursor"])).structured
        assert [row["id"] for row in listed["asks"]] == laptop.asks()
        assert len(listed["ended"]) == 1
