"""Who calls, as a server behind the gateway is told: the gateway's word alone, in both protocol eras."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway.calls import callers
from opencode_mcp import caller
from support.gateway.service import Gateway, fixture_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.chat.mcp_client import Era

FORGED = {callers.KEY: {"login": "root", "may": ["drive"]}}


@pytest.fixture(scope="module")
def told_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose one server believes it."""
    with Gateway(tmp_path_factory.mktemp("gateway"), {"opencode": fixture_entry()}) as running:
        yield running


async def told(gateway: Gateway, era: Era, token: str, meta: dict[str, Any] | None = None) -> object:
    """Return what the server behind the gateway is told under the project's keys."""
    async with gateway.client(token, era=era) as client:
        result = await client.client.call_tool("read", {"instance": "x"}, meta=meta)  # type: ignore[arg-type]
    assert result.structured_content is not None
    return json.loads(result.structured_content["meta"])


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_the_server_is_told_the_login_and_what_it_may(told_gateway: Gateway, era: Era) -> None:
    assert await told(told_gateway, era, "person-token") == {
        callers.KEY: {"login": "ann", "may": ["observe", "approve"]}
    }
    # A machine of that name is another one.
    assert await told(told_gateway, era, "all-token") == {
        callers.KEY: {"login": "token:ann", "may": ["observe", "approve", "drive"]}
    }


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_what_a_client_says_of_itself_is_replaced(told_gateway: Gateway, era: Era) -> None:
    assert await told(told_gateway, era, "observe-token", FORGED) == {
        callers.KEY: {"login": "token:olga", "may": ["observe"]}
    }


async def test_a_server_of_somebody_else_s_is_not_told_who_calls(gateway: Gateway) -> None:
    assert await told(gateway, "2026-07-28", "person-token") == {}
    assert await told(gateway, "2026-07-28", "person-token", FORGED) == {}


def test_both_sides_name_the_key_alike() -> None:
    assert callers.KEY == caller.KEY == "opencode-relay/caller"
