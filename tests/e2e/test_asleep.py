"""Messages for a machine that is away, before real OpenCode: each is done once when it is back, and told of."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from support.chat.mcp_client import relay_client
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("client")]
WITHIN = 90.0
"""Seconds: a turn takes one, and many times that on a machine that does much else."""


async def is_in(client: RelayClient, state: str) -> bool:
    rows = (await client.call("instances")).structured["instances"]
    return [row["state"] for row in rows] == [state]


async def until(client: RelayClient, state: str) -> None:
    await eventually_async(lambda: is_in(client, state), f"the instance is {state}", within=WITHIN)


def leave(registry_dir: Path) -> None:
    """Let the machine be away: its registration ends, and its OpenCode goes on there."""
    (registry_dir / "far.json").unlink()


def come_back(laptop: Driven, registry_dir: Path) -> None:
    laptop.register_at(registry_dir, "far", laptop.port)


async def keep(client: RelayClient, message: str, **more: object) -> Answer:
    return await client.call("send", on_progress=None, instance="far", message=message, when="asleep", **more)


async def waiting(client: RelayClient) -> list[dict[str, Any]]:
    """Return the messages that wait or are on their way."""
    return list((await client.call("inbox")).structured.get("messages", []))


async def ended(client: RelayClient, cursor: str, count: int) -> list[dict[str, Any]]:
    """Wait until so many rows of what ended are told, and return them."""
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        told = (await client.call("wait", cursor=cursor)).structured
        cursor, rows = told["cursor"], rows + told["ended"]
    return rows


async def test_what_was_sent_while_it_was_away_is_done_once_and_what_was_cancelled_never(
    laptop: Driven, registry_dir: Path
) -> None:
    session = laptop.create("For later")
    come_back(laptop, registry_dir)
    async with relay_client(registry_dir) as client:
        await until(client, "idle")
        at_once = await keep(client, "it is there", session=session)
        assert (at_once.structured["result"], at_once.structured["session"]) == ("done", session)
        assert "it is there, so the message was sent at once" in at_once.text
        leave(registry_dir)
        await until(client, "offline")
        first = await keep(client, "the first", session=session)
        assert first.structured["result"] == "kept"
        never = await keep(client, "never to be sent", session=session)
        await keep(client, "the second", session="For later", files=[{"name": "notes.md", "text": "tests: 4711"}])
        rows = await waiting(client)
        assert [row["about"] for row in rows] == ["the first", "never to be sent", "the second"]
        assert rows[0]["handle"] in first.text
        assert [row.get("files") for row in rows] == [None, None, ["notes.md"]]
        cancelled = await client.call("control", instance="far", action="cancel", value=rows[1]["handle"])
        assert not cancelled.is_error
        assert rows[1]["handle"] in never.text
        assert laptop.prompts(session) == ["it is there"]
        cursor = (await client.call("inbox")).structured["cursor"]
        come_back(laptop, registry_dir)
        told = await ended(client, cursor, 2)
        assert [(row["result"], row["session"], row["title"]) for row in told] == [
            ("done", session, f"{rows[0]['handle']}: the first"),
            ("done", session, f"{rows[2]['handle']}: the second"),
        ]
        said = laptop.prompts(session)
        # OpenCode 1 makes more texts of a file.
        assert (said[:3], said.count("the second")) == (["it is there", "the first", "the second"], 1)
        assert await waiting(client) == []
        assert "[file] notes.md" in (await client.call("read", instance="far", session=session)).text


async def test_a_server_that_is_killed_while_it_waits_and_while_the_turn_runs_sends_it_once(
    laptop: Driven, registry_dir: Path, model: ScriptedModel
) -> None:
    session = laptop.create("Killed")
    come_back(laptop, registry_dir)
    with suppress(Exception):  # whatever the SDK makes of it
        async with relay_client(registry_dir) as client:
            await until(client, "idle")
            leave(registry_dir)
            await until(client, "offline")
            kept = await keep(client, "GATE:asleep-killed", session=session)
            assert kept.structured["result"] == "kept"
            os.kill(client.server_pid, signal.SIGKILL)
    come_back(laptop, registry_dir)
    with suppress(Exception):
        async with relay_client(registry_dir) as client:
            await eventually_async(lambda: model.reached("asleep-killed"), "its turn runs", within=WITHIN)
            cursor = (await client.call("inbox")).structured["cursor"]
            os.kill(client.server_pid, signal.SIGKILL)
    async with relay_client(registry_dir) as client:
        model.release("asleep-killed")
        (row,) = await ended(client, cursor, 1)
        assert (row["result"], row["session"]) == ("done", session)
        assert row["title"].endswith(": GATE:asleep-killed")
        assert await waiting(client) == []
    assert laptop.prompts(session) == ["GATE:asleep-killed"]


async def test_of_two_servers_one_sends_what_either_kept(laptop: Driven, registry_dir: Path) -> None:
    session = laptop.create("Two servers")
    come_back(laptop, registry_dir)
    async with relay_client(registry_dir) as one, relay_client(registry_dir) as other:
        for client in (one, other):
            await until(client, "idle")
        leave(registry_dir)
        for client in (one, other):
            await until(client, "offline")
        for client, message in ((one, "of the one"), (other, "of the other")):
            assert (await keep(client, message, session=session)).structured["result"] == "kept"
        cursor = (await other.call("inbox")).structured["cursor"]
        come_back(laptop, registry_dir)
        assert [row["result"] for row in await ended(other, cursor, 2)] == ["done", "done"]
        assert laptop.prompts(session) == ["of the one", "of the other"]


async def test_what_was_said_at_the_machine_itself_meanwhile_stands_before_it(
    laptop: Driven, registry_dir: Path, model: ScriptedModel
) -> None:
    session = laptop.create("Meanwhile")
    come_back(laptop, registry_dir)
    async with relay_client(registry_dir) as client:
        await until(client, "idle")
        leave(registry_dir)
        await until(client, "offline")
        kept = await keep(client, "from afar", session=session)
        assert kept.structured["result"] == "kept"
        laptop.post(session, "at the desk GATE:meanwhile")
        await eventually_async(lambda: model.reached("meanwhile"), "its turn runs", within=WITHIN)
        model.release("meanwhile")
        await eventually_async(lambda: session not in laptop.running(), "it has ended", within=WITHIN)
        cursor = (await client.call("inbox")).structured["cursor"]
        come_back(laptop, registry_dir)
        (row,) = await ended(client, cursor, 1)
        assert row["result"] == "done", row
        said = laptop.messages(session)
        assert [text for role, text in said if role == "user"] == ["at the desk GATE:meanwhile", "from afar"]
        assert said[-1][0] == "assistant", said
