"""Half a character in a call: the call is answered, whichever protocol era its client speaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from support.gateway.service import Gateway, fixture_entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROTOCOL = "io.modelcontextprotocol/protocolVersion"
CLIENT = "io.modelcontextprotocol/clientInfo"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
MODERN = "2026-07-28"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("cut"), {"fixture": fixture_entry()}) as running:
        yield running


def sent(gateway: Gateway, message: str, params: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """Call `send` with `message` as it stands in the JSON, and return the whole answer."""
    arguments = f'{{"instance":"x","message":"{message}"}}'
    rest = "".join(f",{json.dumps(key)}:{json.dumps(value)}" for key, value in params.items())
    body = (
        f'{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"send","arguments":{arguments}{rest}}}}}'
    )
    answer = gateway.request(
        "POST",
        "/mcp",
        {
            "Authorization": "Bearer all-token",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            **headers,
        },
        body.encode(),
    )
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith(("data: ", "{"))]
    whole: dict[str, Any] = json.loads(lines[-1])
    return whole


ERAS = {
    "legacy": ({}, {"MCP-Protocol-Version": "2025-11-25"}),
    "modern": (
        {"_meta": {PROTOCOL: MODERN, CLIENT: {"name": "raw", "version": "1"}, CAPABILITIES: {}}},
        {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "send"},
    ),
}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("written", "passed"),
    [
        (r"half \ud83d emoji", "half \ufffd emoji"),
        (r"\ude00 half", "\ufffd half"),
        (r"whole \ud83d\ude00 emoji", "whole 😀 emoji"),
        (r"no escape \\ud83d", r"no escape \ud83d"),
    ],
)
def test_a_call_with_half_a_character_is_answered(gateway: Gateway, era: str, written: str, passed: str) -> None:
    params, headers = ERAS[era]
    answer = sent(gateway, written, params, headers)
    assert answer["id"] == 7
    assert answer["result"]["structuredContent"]["text"] == passed
