"""`read`: a conversation with what the agent did in it, within its limits, and what happens right now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from support.waiting import eventually_async

if TYPE_CHECKING:
    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def send(client: RelayClient, message: str, **more: object) -> Answer:
    return await client.call("send", on_progress=None, instance="laptop", message=message, **more)


async def read(client: RelayClient, **more: object) -> Answer:
    return await client.call("read", on_progress=None, instance="laptop", **more)


async def test_a_conversation_is_shown_with_the_newest_last(client: RelayClient) -> None:
    await send(client, "first words", session="new")
    sent = await send(client, "second words")
    shown = await read(client)
    rows: list[dict[str, Any]] = shown.structured["messages"]
    assert [(row["role"], row["text"]) for row in rows] == [
        ("user", "first words"),
        ("assistant", "echo: first words"),
        ("user", "second words"),
        ("assistant", "echo: second words"),
    ]
    assert shown.structured["session"] == sent.structured["session"]
    assert shown.structured["state"] == "idle"
    assert shown.text.index("first words") < shown.text.index("echo: second words")
    newest = await read(client, message_limit=1)
    assert [row["text"] for row in newest.structured["messages"]] == ["echo: second words"]


async def test_tool_calls_stand_with_their_status_and_a_short_argument(client: RelayClient, laptop: Driven) -> None:
    there = laptop.directory / "to-be-read"
    there.write_text("what it says")
    missing = laptop.directory / ("long-" * 60)
    await send(client, f"[READ:{there}] [READ:{missing}]", session="new")
    texts = [row["text"] for row in (await read(client)).structured["messages"]]
    assert any(text.startswith("[read: completed] ") and "what it says" in text for text in texts)
    failed = next(text for text in texts if text.startswith("[read: error]"))
    assert "…" in failed
    assert len(failed) < 600


async def test_an_error_stands_where_it_happened(client: RelayClient, laptop: Driven) -> None:
    await send(client, "FAIL400 in a conversation", session="new")
    assert (await read(client)).structured["messages"][-1]["text"] == f"[error] {laptop.failed}scripted failure 400"


async def test_what_is_being_written_right_now_is_shown(client: RelayClient, model: ScriptedModel) -> None:
    turn = asyncio.create_task(send(client, "being written GATE:read-live", session="new"))
    await eventually_async(lambda: model.reached("read-live"), within=30)
    await eventually_async(lambda: shows(client, "echo: being written  [… being written]"))
    assert (await read(client)).structured["state"] == "busy"
    model.release("read-live")
    await turn
    assert (await read(client)).structured["messages"][-1]["text"] == "echo: being written "


async def shows(client: RelayClient, text: str) -> bool:
    messages = (await read(client)).structured["messages"]
    return bool(messages) and messages[-1]["text"] == text


async def test_what_it_waits_for_is_shown_whole(client: RelayClient, laptop: Driven) -> None:
    sent = await send(client, "[BASH:echo waiting]", session="new")
    shown = await read(client)
    assert shown.structured["asks"] == sent.structured["asks"]
    assert shown.structured["messages"][-1]["text"].startswith(f"[{laptop.shell}: ")
    assert sent.structured["asks"][0]["handle"] in shown.text


async def test_without_a_session_yet_it_says_what_to_do(client: RelayClient, laptop: Driven) -> None:
    laptop.forget_sessions()
    await eventually_async(lambda: says_that_there_is_none(client))
    sent = await client.call("send", instance="laptop", message="the first")
    assert sent.structured["result"] == "done"


async def says_that_there_is_none(client: RelayClient) -> bool:
    answer = await read(client)
    return answer.is_error and answer.text == "“laptop” has no session yet; `send` starts one"


async def test_long_output_is_cut_with_a_mark_to_twelve_thousand_characters(client: RelayClient) -> None:
    sent = await send(client, "BIG:30", session="new")
    session = sent.structured["session"]
    shown = await read(client, session=session)
    assert 11_000 < len(shown.text) <= 12_000
    assert "characters cut; ask for a larger max_chars" in shown.text
    more = await read(client, session=session, max_chars=100_000)
    assert "cut" not in more.text
    assert more.structured["messages"][-1]["text"] == "0123456789abcde\n" * 64 * 30
    less = await read(client, session=session, max_chars=1000)
    assert len(less.text) <= 1000


async def test_older_messages_give_way_first_and_visibly(client: RelayClient) -> None:
    await send(client, "an old message", session="new")
    await send(client, "BIG:30")
    await send(client, "a new message")
    shown = await read(client)
    rows = shown.structured["messages"]
    assert [row["role"] for row in rows] == ["note", "assistant", "user", "assistant"]
    assert rows[0]["text"] == "[3 older messages cut; ask for a larger max_chars]"
    assert "an old message" not in shown.text
    assert rows[-1]["text"] == "echo: a new message"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("message_limit", 0),
        ("message_limit", 201),
        ("message_limit", "many"),
        ("message_limit", 1.5),
        ("max_chars", 999),
        ("max_chars", 200_001),
        ("max_chars", None),
    ],
)
async def test_limits_are_checked_and_a_wrong_one_is_one_line(
    client: RelayClient, argument: str, value: object
) -> None:
    refused = await read(client, **{argument: value})
    assert refused.is_error
    assert refused.text.startswith(f"{argument}: Input should be ")
    assert refused.text.endswith("; nothing was done")
    assert "\n" not in refused.text
