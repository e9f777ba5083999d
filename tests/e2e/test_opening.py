"""`control` against real OpenCode: instances opened and closed from afar, and sessions that go on otherwise."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client
from support.opencodes.driven2 import Driven2
from support.opencodes.opencode import OpenCodeHome
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def laptop2(generation: int, home: OpenCodeHome, model: ScriptedModel, tmp_path: Path) -> Iterator[Driven2]:
    """A laptop with OpenCode 2 whose owner lets be opened below `~/work`, and be worked in nowhere else."""
    assert generation == 2
    own = OpenCodeHome(tmp_path / "home", model.base_url, binary=home.binary)
    for below in ("work/api", "private"):
        (own.root / below).mkdir(parents=True)
    config = own.root / ".config" / "opencode-relay" / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('open_below = ["~/work"]\ndirectories = ["~/nothing"]\n')
    with Driven2(own, tmp_path / "project") as driven:
        yield driven


async def control(client: RelayClient, action: str, instance: str = "laptop", **more: object) -> Answer:
    return await client.call("control", on_progress=None, instance=instance, action=action, **more)


async def done(client: RelayClient, action: str, instance: str = "laptop", **more: object) -> str:
    """Have it done, and return the instance that it is about."""
    answer = await control(client, action, instance, **more)
    assert not answer.is_error, answer.text
    assert answer.structured["rows"][0]["result"] == "done", answer.text
    return str(answer.structured["instance"])


@pytest.mark.generations(2)
@pytest.mark.timeout(300)
async def test_an_instance_is_opened_sent_to_and_closed(laptop2: Driven2, model: ScriptedModel) -> None:
    api = str(laptop2.home.root / "work" / "api")
    async with relay_client(laptop2.registry) as client:
        for directory in ("~/private", "/etc", "~/work/../private", ""):
            refused = await control(client, "open", value=directory)
            assert refused.is_error
            assert f"choose a directory in or below {laptop2.home.root / 'work'}" in refused.text
        # By the machine's name.
        name = await done(client, "open", socket.gethostname(), value="~/work/api")
        assert name.endswith("-api")
        again = await control(client, "open", value=api)
        assert again.structured["rows"][0]["result"] == "nothing"
        assert again.structured["instance"] == name
        sent = asyncio.create_task(client.call("send", instance=name, message="hello GATE:opening"))
        await eventually_async(lambda: model.reached("opening"), "the model", within=60)
        with laptop2.service.client() as http:
            (session,) = http.get("/api/session/active").raise_for_status().json()["data"]
            told = http.get(f"/api/session/{session}").raise_for_status().json()["data"]
        assert told["location"]["directory"] == api

        planned = await control(client, "close", name)
        assert planned.structured["rows"][0]["result"] == "planned", planned.text
        assert session in planned.text
        model.release("opening")
        assert (await sent).structured["result"] == "done"
        await done(client, "close", name, plan=planned.structured["plan"])
        assert name not in (await client.call("instances")).text
        with laptop2.service.client() as http:
            http.get(f"/api/session/{session}").raise_for_status()

        refused = await control(client, "close")
        assert refused.is_error
        assert "it goes when its launcher on that laptop ends" in refused.text
        assert await done(client, "open", value="~/work/api") == name
        read = await client.call("read", instance=name)
        assert read.structured["session"] == session, "what was said there is there again"


@pytest.mark.generations(2)
async def test_a_session_goes_on_with_another_agent_or_model_without_a_message(
    client: RelayClient, laptop: Driven
) -> None:
    session = laptop.create("to be switched")
    await done(client, "agent", session=session, value="Plan")
    await done(client, "model", session=session, value="fake/fake")
    read = await client.call("read", instance="laptop", session=session)
    assert (read.structured["agent"], read.structured["model"]) == ("plan", "fake/fake")
    assert laptop.prompts(session) == []
    for action, value, said in (
        ("agent", "plam", "has no agent 'plam'; nearest: "),
        ("agent", "", "`value` is the agent to go on with"),
    ):
        refused = await control(client, action, session=session, value=value)
        assert refused.is_error
        assert said in refused.text
    await client.call("send", instance="laptop", session=session, message="hello")
    read = await client.call("read", instance="laptop", session=session)
    assert read.structured["agent"] == "plan"


@pytest.mark.generations(1)
async def test_opencode_1_says_what_to_do_instead(client: RelayClient, laptop: Driven) -> None:
    session = laptop.create("stays as it is")
    opened = await control(client, "open", value="~/work")
    assert opened.is_error
    assert "install OpenCode 2 and run `opencode-connected service install`" in opened.text
    closed = await control(client, "close")
    assert closed.is_error
    assert "ends at the desk" in closed.text
    switched = await control(client, "agent", session=session, value="plan")
    assert switched.structured["rows"][0]["result"] == "refused"
    assert "`send` one with agent='plan'" in switched.text
