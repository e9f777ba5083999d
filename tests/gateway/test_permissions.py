"""Capabilities of a login or token: what is seen, what can be called, and whose word counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_gateway.calls.permissions import Permissions
from opencode_gateway.capabilities import DEFAULT_TOOLS, OPENCODE_TOOLS, permitted
from support.chat.mcp_client import relay_client
from support.gateway.service import Gateway, fixture_entry

if TYPE_CHECKING:
    from pathlib import Path

    from support.chat.mcp_client import Era

TOOLS = {"instances", "read", "reply", "send", "unlisted"}
"""Of the fixture server."""
SEEN = {
    "all-token": {"instances", "read", "reply", "send"},
    "observe-token": {"instances", "read"},
    "approve-token": {"reply"},
    "nothing-token": set[str](),
}


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
@pytest.mark.parametrize("token", SEEN)
async def test_a_login_sees_and_may_call_exactly_the_tools_of_its_capabilities(
    gateway: Gateway, token: str, era: Era
) -> None:
    async with gateway.client(token, era=era) as client:
        assert set(await client.tools()) == SEEN[token]
        for tool in TOOLS - SEEN[token]:
            answer = await client.call(tool, instance="x")
            assert answer.is_error
            assert answer.text.endswith("; nothing was done")
        if "instances" in SEEN[token]:
            assert not (await client.call("instances")).is_error


async def test_a_refusal_says_what_would_be_needed(gateway: Gateway) -> None:
    async with gateway.client("observe-token") as client:
        answer = await client.call("send", instance="x")

    assert answer.text == "'send' needs the capability drive, which this login does not have; nothing was done"


async def test_a_tool_that_no_capability_lists_is_nobodys(gateway: Gateway) -> None:
    async with gateway.client("all-token") as client:
        answer = await client.call("unlisted")

    assert answer.text == "'unlisted' is no tool that this gateway serves; nothing was done"


async def test_a_tool_cannot_be_called_by_another_name(gateway: Gateway) -> None:
    names = ("Send", " send", "send ", "fixture_send", "__0123456789ab_send", "tools/send")
    async with gateway.client("observe-token") as client:
        for name in names:
            assert (await client.call(name, instance="x")).is_error

    assert [(line["tool"], line["outcome"]) for line in gateway.audit()[-len(names) :]] == [
        (name, "refused") for name in names
    ]


async def test_the_default_map_has_every_tool_of_the_opencode_server(registry_dir: Path) -> None:
    async with relay_client(registry_dir) as client:
        assert set(await client.tools()) == set(OPENCODE_TOOLS)


def test_each_tool_of_the_default_map_needs_one_capability() -> None:
    assert {
        **dict.fromkeys(("instances", "inbox", "read", "sessions", "changes", "wait"), "observe"),
        "reply": "approve",
        **dict.fromkeys(("send", "control"), "drive"),
    } == OPENCODE_TOOLS
    assert sum(map(len, DEFAULT_TOOLS.values())) == len(OPENCODE_TOOLS)


def test_an_old_map_is_told_at_the_start_with_what_it_has_too_much_and_too_little(tmp_path: Path) -> None:
    tools = {"observe": ["instances", "read"], "drive": ["send", "abort"]}
    with Gateway(tmp_path, {"fixture": fixture_entry()}, capabilities=tools) as gateway:
        assert gateway.get("/healthz").status_code == 200

    told = "WARNING opencode_gateway.app: "
    assert f"{told}`capabilities` of gateway.json lists what no server has: abort; take it out" in gateway.log
    assert f"{told}no capability lists reply, unlisted, so nobody may use it; what people need" in gateway.log


def test_our_own_map_is_nothing_that_the_owner_could_mend(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"fixture": fixture_entry()}) as gateway:
        assert gateway.get("/healthz").status_code == 200

    assert "lists what no server has" not in gateway.log


def test_without_a_token_nothing_is_served(gateway: Gateway) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}):
        assert gateway.request("POST", "/mcp", headers, b"{}").status_code == 401


def test_capabilities_are_the_only_way_to_a_tool() -> None:
    assert permitted(DEFAULT_TOOLS, []) == frozenset()
    assert Permissions(DEFAULT_TOOLS)._allowed() == frozenset(), "without a token there are none"
    assert permitted(DEFAULT_TOOLS, ["admin", "*", "send"]) == frozenset()
    assert permitted(DEFAULT_TOOLS, ["drive", "drive"]) == {"send", "control"}
