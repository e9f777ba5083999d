"""Resources and prompts through the gateway: the OpenCode server's alone, to whom observes, and written down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent, TextResourceContents

from opencode_gateway.capabilities import PROMPTS, tools_showing
from opencode_mcp.prompts import REVIEW, STAND_UP
from opencode_mcp.resources import INSTANCE, INSTANCES, SESSION
from support.fleet.registry import register, registration
from support.gateway.service import Gateway, fixture_entry
from support.opencodes.fake_fleet import FakeFleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.chat.mcp_client import Era, ToolClient

ERAS = ("legacy", "2026-07-28")
NOT_OURS = (
    "fixture://secret",
    "fixture://fixture/secret",
    "fixture://x/secret",
    "opencode://fixture/sessions/x",
    "fixture://fixture/x/secret",
    "ui://fixture/card",
    "OPENCODE://instances",
    "opencode://other",
    "opencode:instances",
    "file:///etc/passwd",
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A registry with one scripted instance, of an odd name."""
    directory = tmp_path_factory.mktemp("fleet") / "registry"
    with FakeFleet(directory) as fleet:
        (port,) = fleet.add(1).values()
        register(directory, registration("büro 1", port, cwd="/home/fake"))
        (directory / f"fake-{port}.json").unlink()
        yield directory


def opencode(registry: Path, **more: object) -> dict[str, Any]:
    env = {"RELAY_REGISTRY_DIR": str(registry), "RELAY_STATE_DIR": f"{registry}-state"}
    return {"command": "opencode-mcp", "env": env, **more}


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, registry: Path) -> Iterator[Gateway]:
    """A gateway with the real server behind it, beside another one that poses as it."""
    servers = {"opencode": opencode(registry), "fixture": fixture_entry()}
    with Gateway(tmp_path_factory.mktemp("relay"), servers) as running:
        yield running


async def listed(client: ToolClient) -> list[str]:
    return [each.uri for each in (await client.client.list_resources()).resources]


async def templates(client: ToolClient) -> list[str]:
    return [each.uri_template for each in (await client.client.list_resource_templates()).resource_templates]


async def prompts(client: ToolClient) -> list[str]:
    return [each.name for each in (await client.client.list_prompts()).prompts]


async def text_at(client: ToolClient, uri: str) -> str:
    (content,) = (await client.client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert (content.uri, content.mime_type) == (uri, "text/plain")
    return content.text


async def refusal(client: ToolClient, uri: str) -> str:
    with pytest.raises(MCPError) as refused:
        await client.client.read_resource(uri)
    return refused.value.error.message


def test_what_the_gateway_calls_the_server_s_is_what_the_server_has() -> None:
    assert {STAND_UP, REVIEW} == PROMPTS
    assert [tools_showing(uri) for uri in (INSTANCES, INSTANCE, SESSION)] == [
        ("instances",),
        ("instances", "sessions"),
        ("read",),
    ]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("token", ["all-token", "observe-token"])
async def test_who_observes_lists_and_reads_all_that_the_server_has(relay: Gateway, token: str, era: Era) -> None:
    before = len(relay.audit())
    async with relay.client(token, era=era) as client:
        uris = await listed(client)
        of_session = uris[-1]
        assert uris == [INSTANCES, "opencode://instances/b%C3%BCro%201", of_session]
        assert of_session.startswith("opencode://sessions/s")
        assert await templates(client) == [INSTANCE, SESSION]
        assert sorted(await prompts(client)) == sorted(PROMPTS)
        for uri in uris:
            assert "büro 1" in await text_at(client, uri)
        (message,) = (await client.client.get_prompt("review", {"instance": "büro 1"})).messages
        assert isinstance(message.content, TextContent)
        assert '`instance` "büro 1"' in message.content.text
    lines = relay.audit()[before:]
    told = [(line["event"], line["outcome"], line.get("resource") or line.get("prompt")) for line in lines]
    assert told == [
        ("resources", "ok", None),
        *(("resource", "ok", uri) for uri in uris),
        ("prompt", "ok", "review"),
    ]
    assert {line["login"] for line in lines} == {"ann" if token == "all-token" else "olga"}
    assert all(line["duration_ms"] >= 0 for line in lines)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("token", ["approve-token", "nothing-token"])
async def test_who_does_not_observe_lists_and_reads_nothing(relay: Gateway, token: str, era: Era) -> None:
    before = len(relay.audit())
    async with relay.client(token, era=era) as client:
        assert (await listed(client), await templates(client), await prompts(client)) == ([], [], [])
        said = await refusal(client, INSTANCES)
        assert said == (
            "'opencode://instances' needs the capability observe, which this login does not have; nothing was read"
        )
        with pytest.raises(MCPError, match="'stand-up' needs the capability observe"):
            await client.client.get_prompt("stand-up", {})
    assert [(line["event"], line["outcome"]) for line in relay.audit()[before:]] == [
        ("resource", "refused"),
        ("prompt", "refused"),
    ]


@pytest.mark.parametrize("era", ERAS)
async def test_another_server_s_are_neither_seen_nor_read_whatever_they_are_called(relay: Gateway, era: Era) -> None:
    before = len(relay.audit())
    async with relay.client(era=era) as client:
        assert not [uri for uri in await listed(client) if not uri.startswith("opencode://")]
        for uri in NOT_OURS:
            assert await refusal(client, uri) == f"Resource not found: {uri!r}"
        assert "posing" not in await refusal(client, "opencode://sessions/x")
        for name in ("prompt", "fixture_prompt", "fixture_stand-up", "Stand-up"):
            with pytest.raises(MCPError, match=f"Unknown prompt: '{name}'"):
                await client.client.get_prompt(name, {})
        (message,) = (await client.client.get_prompt("stand-up", {})).messages
        assert "posing" not in str(message.content)
    outcomes = [line["outcome"] for line in relay.audit()[before:]]
    assert outcomes == ["ok", *["not-found"] * (len(NOT_OURS) + 5), "ok"]


async def test_what_the_server_says_is_wrong_is_passed_on_in_its_words(relay: Gateway) -> None:
    async with relay.client() as client:
        said = await refusal(client, "opencode://instances/nobody")
        with pytest.raises(MCPError, match=r"`review` takes: instance, session \(may be left out\)"):
            await client.client.get_prompt("review", {})

    assert said == "no instance is named 'nobody'; opencode://instances lists all"
    assert "Traceback" not in relay.log


async def test_without_a_server_of_that_name_there_are_none(gateway: Gateway) -> None:
    before = len(gateway.audit())
    async with gateway.client() as client:
        assert (await listed(client), await templates(client), await prompts(client)) == ([], [], [])
        for uri in (*NOT_OURS, "opencode://sessions/x"):
            assert "posing" not in await refusal(client, uri)
        with pytest.raises(MCPError):
            await client.client.get_prompt("stand-up", {})
    assert all(line["outcome"] != "ok" for line in gateway.audit()[before:])


async def test_a_resource_shows_nothing_that_the_caller_may_not_have_a_tool_show(
    tmp_path: Path, registry: Path
) -> None:
    tools = {"observe": ["instances", "sessions"], "drive": ["read"]}
    with Gateway(tmp_path / "map", {"opencode": opencode(registry)}, capabilities=tools) as gateway:
        async with gateway.client("observe-token") as client:
            assert await templates(client) == [INSTANCE]
            assert [uri for uri in await listed(client) if "sessions" in uri] == []
            assert await refusal(client, "opencode://sessions/s1") == (
                "'opencode://sessions/s1' shows what read shows, which this login may not use; nothing was read"
            )
        async with gateway.client("all-token") as client:
            assert await templates(client) == [INSTANCE, SESSION]
    with Gateway(tmp_path / "few", {"opencode": opencode(registry, tools=["instances"])}) as gateway:
        async with gateway.client() as client:
            assert (await listed(client), await templates(client)) == ([INSTANCES], [])
            assert "shows what read shows" in await refusal(client, "opencode://sessions/s1")


async def test_a_server_that_dies_or_takes_too_long_is_said_and_the_next_read_is_answered(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"opencode": fixture_entry()}, tool_timeout_seconds=5) as gateway:
        async with gateway.client() as client:
            died = await refusal(client, "opencode://sessions/die")
            assert await text_at(client, "opencode://sessions/x") == "posing as x"
            late = await refusal(client, "opencode://sessions/wait")
            assert await text_at(client, "opencode://sessions/x") == "posing as x"
        outcomes = [line["outcome"] for line in gateway.audit()]
    assert died == (
        'the server behind the gateway broke off before it answered "opencode://sessions/die". Ask for it again'
    )
    assert late == '"opencode://sessions/wait" did not come within 10 s: ask for it again'
    assert outcomes == ["failed", "ok", "timeout", "ok"]


async def test_a_read_that_runs_when_the_service_ends_is_answered(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with Gateway(tmp_path / "gateway", {"opencode": fixture_entry(env={"FIXTURE_BEGUN": str(begun)})}) as gateway:
        async with gateway.client() as client:
            read = asyncio.create_task(refusal(client, "opencode://sessions/wait"))
            await eventually_async(begun.exists)
            gateway.process.terminate()
            said = await read
        assert gateway.audit()[-1]["outcome"] == "unfinished"
    assert said == (
        'the gateway is being restarted and cannot wait for "opencode://sessions/wait" any longer. '
        "Ask for it again in a few seconds"
    )
