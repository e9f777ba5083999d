"""Who calls, as a server behind the gateway is told: the gateway's word alone, in both protocol eras."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway.calls import callers
from opencode_mcp import caller

if TYPE_CHECKING:
    from support.gateway import Gateway
    from support.mcp_client import Era


async def told(gateway: Gateway, era: Era, token: str, meta: dict[str, Any] | None = None) -> object:
    """Return what the server behind the gateway is told under the project's keys."""
    async with gateway.client(token, era=era) as client:
        result = await client.client.call_tool("read", {"instance": "x"}, meta=meta)  # type: ignore[arg-type]
    assert result.structured_content is not None
    return json.loads(result.structured_content["meta"])


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_the_server_is_told_the_login_and_what_it_may(gateway: Gateway, era: Era) -> None:
    assert await told(gateway, era, "person-token") == {callers.KEY: {"login": "ann", "may": ["observe", "approve"]}}
    # A machine of that name is another one.
    assert await told(gateway, era, "all-token") == {
        callers.KEY: {"login": "token:ann", "may": ["observe", "approve", "drive"]}
    }


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_what_a_client_says_of_itself_is_replaced(gateway: Gateway, era: Era) -> None:
    forged = {callers.KEY: {"login": "root", "may": ["drive"]}}

    assert await told(gateway, era, "observe-token", forged) == {
        callers.KEY: {"login": "token:olga", "may": ["observe"]}
    }


def test_both_sides_name_the_key_alike() -> None:
    assert callers.KEY == caller.KEY == "opencode-relay/caller"
