"""`send` against real OpenCode: with another agent or model, by a session's title, into and after a running turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from support.opencodes.driven2 import Driven2
from support.waiting import eventually_async

if TYPE_CHECKING:
    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def send(client: RelayClient, message: str, **more: object) -> Answer:
    return await client.call("send", on_progress=None, **({"instance": "laptop", "message": message} | more))


async def test_a_session_goes_on_with_the_agent_that_a_message_chose(client: RelayClient) -> None:
    first = await send(client, "one", session="new", agent="plan", model="fake/fake")
    assert first.structured.get("result") == "done", first.text
    session = first.structured["session"]
    # The next one names none, and leaves it so.
    await send(client, "two", session=session)
    read = await client.call("read", instance="laptop", session=session)
    assert (read.structured["agent"], read.structured["model"]) == ("plan", "fake/fake")
    await send(client, "three", session=session, agent="build")
    read = await client.call("read", instance="laptop", session=session)
    assert read.structured["agent"] == "build"


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"agent": "plam"}, "has no agent 'plam'; nearest: "),
        ({"agent": "general"}, "has no agent 'general'"),
        ({"model": "fake/fale"}, "has no model 'fake/fale'; nearest: "),
    ],
)
async def test_what_is_not_offered_there_is_refused(
    client: RelayClient, laptop: Driven, chosen: dict[str, str], said: str
) -> None:
    before = laptop.sessions()
    answer = await send(client, "never sent", session="new", **chosen)
    assert answer.is_error
    assert said in answer.text
    assert laptop.sessions() == before


async def test_a_session_is_found_by_words_of_its_title(client: RelayClient, laptop: Driven) -> None:
    session = laptop.create("The quick brown fox")
    answer = await send(client, "hello", session="brown fox")
    assert (answer.structured["session"], answer.structured["text"]) == (session, "echo: hello")


async def test_a_message_joins_the_turn_that_runs(client: RelayClient, model: ScriptedModel, laptop: Driven) -> None:
    first = asyncio.create_task(send(client, "begin GATE:manner-steer end", session="new"))
    await eventually_async(lambda: model.reached("manner-steer"), "the model", within=60)
    (session,) = laptop.running()
    steered = asyncio.create_task(send(client, "and this", session=session, when="steer"))
    await eventually_async(
        lambda: "and this" in laptop.prompts(session) + queue(laptop, session), "the second message", within=60
    )
    model.release("manner-steer")
    answer = await steered
    assert (answer.structured["result"], answer.structured["when"]) == ("done", "steer")
    assert answer.structured["text"] == "echo: and this"
    assert (await first).structured["text"].startswith("echo: begin  end")


def queue(laptop: Driven, session: str) -> list[str]:
    """Return the messages that OpenCode 2 has accepted and not begun with."""
    if not isinstance(laptop, Driven2):
        return []
    with laptop.service.client() as http:
        told = http.get(f"/api/session/{session}/inbox").raise_for_status().json()
    return [item["payload"]["text"] for item in told["data"]]


@pytest.mark.generations(2)
async def test_a_message_is_queued_behind_the_turn_that_runs(
    client: RelayClient, model: ScriptedModel, laptop: Driven
) -> None:
    first = asyncio.create_task(send(client, "begin GATE:manner-queue end", session="new"))
    await eventually_async(lambda: model.reached("manner-queue"), "the model", within=60)
    (session,) = laptop.running()
    queued = await send(client, "later", session=session, when="queue")
    assert (queued.structured["result"], queued.structured["when"]) == ("queued", "queue")
    assert queue(laptop, session) == ["later"]
    model.release("manner-queue")
    await first
    await eventually_async(lambda: ("assistant", "echo: later") in laptop.messages(session), "its answer", within=60)
    assert laptop.prompts(session) == ["begin GATE:manner-queue end", "later"]


@pytest.mark.generations(1)
async def test_opencode_1_keeps_no_message_for_after_the_turn(
    client: RelayClient, model: ScriptedModel, laptop: Driven
) -> None:
    first = asyncio.create_task(send(client, "begin GATE:manner-queue end", session="new"))
    await eventually_async(lambda: model.reached("manner-queue"), "the model", within=60)
    (session,) = laptop.running()
    refused = await send(client, "later", session=session, when="queue")
    assert refused.is_error
    assert "would join that turn at its next step; nothing was sent" in refused.text
    model.release("manner-queue")
    await first
    assert laptop.prompts(session) == ["begin GATE:manner-queue end"]


async def test_all_take_a_message_and_none_is_waited_for(client: RelayClient, laptop: Driven) -> None:
    answer = await send(client, "to all", instance="all", session="new")
    (row,) = answer.structured["sent"]
    assert (row["instance"], row["result"]) == ("laptop", "running")
    answered = ("assistant", "echo: to all")
    await eventually_async(lambda: answered in laptop.messages(row["session"]), "its answer", within=60)


@pytest.mark.generations(1)
async def test_a_message_that_is_a_command_runs_it_and_keeps_the_agent(client: RelayClient, laptop: Driven) -> None:
    answer = await send(client, "/init in one line", session=laptop.create_with_agent("plan"))
    assert answer.structured.get("result") == "done", answer.text
    assert "in one line" in answer.structured["text"]
    read = await client.call("read", instance="laptop", session=answer.structured["session"])
    assert read.structured["agent"] == "plan"
    # What would read a file of the laptop unasked is kept back there.
    refused = await send(client, "/init @~/.ssh/id_rsa", session="new")
    assert "does not let `commands-with-shell` through" in refused.text


@pytest.mark.generations(2)
async def test_a_command_whose_template_is_not_told_needs_the_owners_word(client: RelayClient) -> None:
    refused = await send(client, "/init in one line", session="new")
    assert refused.is_error
    assert "does not let `commands-with-shell` through" in refused.text


@pytest.mark.parametrize(
    ("message", "said"),
    [("/revew it", "has no command 'revew'; nearest: "), ("/compact", "a command of OpenCode's own screen")],
)
async def test_a_command_that_is_not_there_goes_to_no_model(client: RelayClient, message: str, said: str) -> None:
    refused = await send(client, message)
    assert refused.is_error
    assert said in refused.text
