"""Which session a message goes to, whatever else there is in the directory and beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client

if TYPE_CHECKING:
    from pathlib import Path

    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def send(client: RelayClient, message: str, **more: object) -> Answer:
    return await client.call("send", on_progress=None, instance="laptop", message=message, **more)


async def test_a_message_goes_on_in_the_session_that_this_process_ran_last(
    client: RelayClient, laptop: Driven
) -> None:
    first = await send(client, "in a session of its own", session="new")
    laptop.create("nothing ran in it, although it is newer")
    again = await send(client, "and on")
    assert again.structured["session"] == first.structured["session"]


async def test_without_a_known_session_the_newest_of_its_directory_is_taken(laptop: Driven, tmp_path: Path) -> None:
    laptop.forget_sessions()
    newest = laptop.create("the newest")
    laptop.create("elsewhere", directory=tmp_path)
    async with relay_client(laptop.registry) as client:
        answer = await send(client, "into the newest")
        assert answer.structured["session"] == newest
        (row,) = (await client.call("instances")).structured["instances"]
        assert row["session"] == newest


async def test_a_subagents_session_is_passed_over(laptop: Driven) -> None:
    laptop.forget_sessions()
    async with relay_client(laptop.registry) as client:
        ended = await send(client, "[TASK:a newer one]")
        assert ended.structured["result"] == "done"
    assert len(laptop.children(ended.structured["session"])) == 1
    async with relay_client(laptop.registry) as client:
        answer = await send(client, "where it belongs")
        assert answer.structured["session"] == ended.structured["session"]


@pytest.mark.parametrize(
    ("session", "said"),
    [
        ("ses_0000000000000000000000000", "has no session ses_0000000000000000000000000"),
        ("../../global/dispose", "is in no session's title"),
        ("ses_x/../../global/dispose", "is no session id"),
        ("ses_" + "x" * 5000, "is no session id"),
        ("New", "is no session id"),
    ],
)
async def test_what_is_no_session_of_the_instance_is_refused(client: RelayClient, session: str, said: str) -> None:
    for tool, more in (("send", {"message": "nowhere"}), ("read", {})):
        refused = await client.call(tool, on_progress=None, instance="laptop", session=session, **more)
        assert refused.is_error
        assert said in refused.text
        assert len(refused.text) < 2_000


async def test_new_always_means_a_fresh_session(client: RelayClient) -> None:
    first = await send(client, "one", session="new")
    second = await send(client, "two", session="new")
    assert first.structured["session"] != second.structured["session"]


async def test_a_subagents_session_is_not_driven_beside_its_parent_and_reads_as_busy_while_it_runs(
    client: RelayClient, laptop: Driven, model: ScriptedModel
) -> None:
    turn = await send(client, "[TASK:{BASH:echo sub-busy}]", session="new")
    (ask,) = turn.structured["asks"]
    (child,) = laptop.children(ask["session"])
    refused = await send(client, "never-sent to a subagent", session=child)
    assert refused.is_error
    assert ask["session"] in refused.text
    assert model.turns("never-sent") == []
    read = await client.call("read", instance="laptop", session=child)
    assert read.structured["state"] == "busy"
    assert [found["id"] for found in read.structured["asks"]] == [ask["id"]]
