"""What OpenCode 2 alone has: one service for all directories, which outlives launchers and resumes what it ran."""

from __future__ import annotations

import asyncio
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client
from support.line.fake_broken_line import BrokenLine
from support.opencodes.driven2 import Driven2
from support.opencodes.headless import Headless
from support.opencodes.opencode import OpenCodeHome
from support.opencodes.scripted_model import ScriptedModel
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.chat.mcp_client import Answer, RelayClient

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.generations(2), pytest.mark.timeout(400)]

WITHIN = 120.0
"""Seconds in which a launcher sees to it that the service is there again."""


@pytest.fixture(scope="module")
def own_model() -> Iterator[ScriptedModel]:
    """The model of `fragile` alone."""
    with ScriptedModel() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def fragile(
    own_model: ScriptedModel, opencode2_bin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driven2]:
    """An OpenCode 2 that may be killed, and whose owner lets `always` through."""
    home = OpenCodeHome(tmp_path_factory.mktemp("fragile"), own_model.base_url, binary=opencode2_bin)
    directory = tmp_path_factory.mktemp("fragile-project")
    with Driven2(home, directory, rights="observe drive approve always") as driven:
        yield driven


async def send(client: RelayClient, message: str, *, instance: str = "laptop", **more: object) -> Answer:
    return await client.call("send", on_progress=None, instance=instance, message=message, **more)


async def rows(client: RelayClient) -> dict[str, str]:
    """Return the states of the instances, by name."""
    return {row["name"]: row["state"] for row in (await client.call("instances")).structured["instances"]}


# -- directories ---------------------------------------------------------------------------------------------------


async def test_two_directories_of_one_service_are_two_instances_on_one_event_stream(
    laptop: Driven2, tmp_path: Path, registry_dir: Path, model: ScriptedModel
) -> None:
    other = Headless(laptop.home, tmp_path / "other", laptop.registry, "other")
    async with BrokenLine(laptop.port) as line:
        laptop.register_at(registry_dir, "far", line.port)
        async with relay_client(registry_dir) as client:
            await eventually_async(lambda: are_there(client, {"far": "idle"}), within=WITHIN)
            other.launch()
            try:
                await eventually_async(lambda: are_there(client, {"far": "idle", "other": "idle"}), within=WITHIN)
                turn = asyncio.create_task(send(client, "GATE:in-the-other-one", instance="other"))
                await eventually_async(lambda: model.reached("in-the-other-one"), within=WITHIN)
                await eventually_async(lambda: are_there(client, {"far": "idle", "other": "busy"}))
                here = await send(client, "in the first one", instance="far")
                model.release("in-the-other-one")
                there = await turn
                assert (here.structured["result"], there.structured["result"]) == ("done", "done")
                assert there.structured["session"] not in laptop.sessions()
                elsewhere = await send(client, "never", instance="far", session=there.structured["session"])
                assert "belongs to another directory" in elsewhere.text
                assert sum(b"/api/event" in request.partition(b"\r\n")[0] for request in line.arrived) == 1
            finally:
                await asyncio.to_thread(other.end)
            await eventually_async(lambda: are_there(client, {"far": "idle"}), within=WITHIN)


async def are_there(client: RelayClient, wanted: dict[str, str]) -> bool:
    return await rows(client) == wanted


async def test_what_goes_on_in_a_directory_that_was_not_opened_is_not_seen(
    client: RelayClient, laptop: Driven2, tmp_path: Path, model: ScriptedModel
) -> None:
    private = laptop.create("a private matter", directory=tmp_path)
    laptop.post(private, "GATE:private-turn")
    await eventually_async(lambda: model.reached("private-turn"), within=WITHIN)
    try:
        listed = await client.call("instances")
        assert list(await rows(client)) == ["laptop"]
        assert (await rows(client))["laptop"] == "idle"
        assert "private" not in listed.text
        for tool, more in (("read", {}), ("send", {"message": "hello"}), ("send", {"abort": True})):
            refused = await client.call(tool, instance="laptop", session=private, **more)
            assert refused.is_error
            assert "private matter" not in refused.text
        assert laptop.running() == [private]
    finally:
        model.release("private-turn")


async def test_the_guard_lets_nobody_past_it_who_only_has_its_key(laptop: Driven2) -> None:
    with laptop.through_the_guard() as http:
        assert http.get("/global/health").json()["healthy"] is True
        for route in ("/api/config", "/api/provider", "/api/fs/read?path=/etc/passwd"):
            refused = http.get(route)
            assert refused.status_code == 403
            assert refused.json()["name"] == "GuardRefused"
        assert http.post("/api/shell", json={"command": "id"}).status_code == 403
        assert http.get("/opencode-relay/guard", headers={"origin": "https://example.org"}).status_code == 403


# -- what may be decided from afar ---------------------------------------------------------------------------------


async def ask_for(client: RelayClient, command: str, *, instance: str = "laptop") -> str:
    """Have the agent ask for a command, and return the ask's id."""
    answer = await send(client, f"[BASH:{command}]", instance=instance, session="new")
    assert answer.structured.get("asks"), answer.text
    return str(answer.structured["asks"][0]["id"])


async def reply(client: RelayClient, ask: str, answer: str, *, instance: str = "laptop") -> Answer:
    return await client.call("reply", on_progress=None, instance=instance, ask=ask, answer=answer)


async def test_always_is_refused_from_afar_unless_the_owner_lets_it_through(
    client: RelayClient, laptop: Driven2
) -> None:
    ask = await ask_for(client, "echo not-for-ever")
    refused = await reply(client, ask, "always")
    assert refused.is_error
    assert "does not let `always` through from afar" in refused.text
    assert "`remote` in its config.toml" in refused.text
    assert laptop.asks() == [ask]
    with laptop.through_the_guard() as http:
        (session,) = laptop.running()
        told = http.post(f"/api/session/{session}/permission/{ask}/reply", json={"decision": "always"})
    assert told.status_code == 403
    assert told.json()["data"]["right"] == "always"
    assert laptop.asks() == [ask]


async def test_always_is_for_ever_where_the_owner_lets_it_through(fragile: Driven2) -> None:
    async with relay_client(fragile.registry) as client:
        ask = await ask_for(client, "printf for-ever-one")
        listed = (await client.call("reply", instance="laptop")).text
        assert "`always` would also allow, for ever, in every clone and worktree of this project: printf *" in listed
        assert (await reply(client, ask, "always")).structured["result"] == "done"
        again = await send(client, "[BASH:printf for-ever-two]", session="new")
        assert again.structured["result"] == "done"
        assert "for-ever-two" in again.structured["text"]


async def test_always_is_refused_where_all_repositories_without_a_commit_would_share_it(
    fragile: Driven2, tmp_path: Path
) -> None:
    repository = tmp_path / "empty"
    repository.mkdir()
    await asyncio.to_thread(subprocess.run, ["git", "init", "-q", str(repository)], check=True)
    launcher = Headless(fragile.home, repository, fragile.registry, "empty", rights="observe drive approve always")
    launcher.launch()
    try:
        async with relay_client(fragile.registry) as client:
            await eventually_async(lambda: is_there(client, "empty"), within=WITHIN)
            ask = await ask_for(client, "echo shared", instance="empty")
            refused = await reply(client, ask, "always", instance="empty")
            assert refused.is_error
            assert "all repositories without a commit share one project" in refused.text
            assert fragile.asks() == [ask]
            assert (await reply(client, ask, "once", instance="empty")).structured["result"] == "done"
    finally:
        await asyncio.to_thread(launcher.end)


async def is_there(client: RelayClient, name: str) -> bool:
    return (await rows(client)).get(name) == "idle"


async def test_the_reason_of_a_rejection_reaches_the_model_as_a_message(
    client: RelayClient, laptop: Driven2, model: ScriptedModel, tmp_path: Path
) -> None:
    ask = await ask_for(client, f"touch {tmp_path / 'unwanted'}")
    (session,) = laptop.running()
    answer = await reply(client, ask, "reject: better-leave-it alone")
    assert answer.structured["result"] == "done"
    assert answer.structured["text"] == "echo: better-leave-it alone"
    assert laptop.prompts(session)[-1] == "better-leave-it alone"
    assert len(model.turns("better-leave-it")) == 1
    assert not (tmp_path / "unwanted").exists()


# -- a service that dies, and launchers that go --------------------------------------------------------------------


async def test_a_turn_whose_service_was_killed_is_resumed_and_followed_to_its_end(
    fragile: Driven2, own_model: ScriptedModel
) -> None:
    async with relay_client(fragile.registry) as client:
        turn = asyncio.create_task(send(client, "half a GATE:killed-in-mid-turn", session="new"))
        await eventually_async(lambda: own_model.reached("killed-in-mid-turn"), within=WITHIN)
        before = fragile.service.pid
        await asyncio.to_thread(fragile.kill)
        await asyncio.to_thread(fragile.revive)
        assert fragile.service.pid != before
        answer = await turn
        assert answer.structured["result"] == "done", answer.text
        assert fragile.prompts(answer.structured["session"]) == ["half a GATE:killed-in-mid-turn"]
        on = await send(client, "and on", session=answer.structured["session"])
        assert on.structured["text"] == "echo: and on"


async def test_an_ask_of_a_service_that_was_killed_is_void_and_said_to_be(fragile: Driven2, tmp_path: Path) -> None:
    async with relay_client(fragile.registry) as client:
        ask = await ask_for(client, f"touch {tmp_path / 'void'}")
        await asyncio.to_thread(fragile.kill)
        await asyncio.to_thread(fragile.revive)
        await eventually_async(lambda: is_there(client, "laptop"), within=WITHIN)
        listed = await client.call("reply", instance="laptop")
        assert listed.text == "“laptop” waits for nothing."
        refused = await reply(client, ask, "once")
        assert refused.is_error
        assert re.search(r"does not wait for 'a[0-9]+'", refused.text)
        assert not (tmp_path / "void").exists()


async def test_a_turn_goes_on_when_the_last_launcher_ends_and_that_is_said(
    fragile: Driven2, own_model: ScriptedModel
) -> None:
    async with relay_client(fragile.registry) as client:
        turn = asyncio.create_task(send(client, "some words GATE:closed-there more", session="new"))
        await eventually_async(lambda: own_model.reached("closed-there"), within=WITHIN)
        await asyncio.to_thread(fragile.launcher.end)
        try:
            answer = await turn
            assert answer.structured["result"] == "running", answer.text
            assert "it was closed there, and the turn goes on" in answer.text
            listed = await client.call("instances")
            assert "it was closed there, 1 turn goes on" in listed.text
            assert await rows(client) == {"laptop": "offline"}
        finally:
            await asyncio.to_thread(fragile.launcher.start)
        own_model.release("closed-there")
        await eventually_async(lambda: is_there(client, "laptop"), within=WITHIN)
        read = await client.call("read", instance="laptop", session=answer.structured["session"])
        assert read.structured["messages"][-1]["text"] == "echo: some words  more"
