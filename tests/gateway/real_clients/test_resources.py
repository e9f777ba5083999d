"""Resources and prompts with a real client: the MCP Inspector's command line, through the gateway."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from support.clients import installed
from support.gateway.service import Gateway

if TYPE_CHECKING:
    from pathlib import Path


def asked(gateway: Gateway, method: str, *options: str) -> dict[str, Any]:
    """Have the Inspector make one request as somebody who observes."""
    command = [*installed.inspector(), "--cli", f"{gateway.url}/mcp", "--transport", "http", "--format", "json"]
    header = ["--header", "Authorization: Bearer observe-token"]
    done = subprocess.run(
        [*command, *header, "--quiet", "--method", method, *options],
        env={**os.environ, "MCP_INSPECTOR_SECRET_STORE": "file"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)["result"]
    return result


def test_the_inspector_lists_and_reads_what_there_is(tmp_path: Path) -> None:
    env = {"RELAY_REGISTRY_DIR": str(tmp_path / "registry"), "RELAY_STATE_DIR": str(tmp_path / "state")}
    with Gateway(tmp_path / "gateway", {"opencode": {"command": "opencode-mcp", "env": env}}) as gateway:
        (listed,) = asked(gateway, "resources/list")["resources"]
        templates = asked(gateway, "resources/templates/list")["resourceTemplates"]
        (content,) = asked(gateway, "resources/read", "--uri", listed["uri"])["contents"]
        prompts = asked(gateway, "prompts/list")["prompts"]
        got = asked(gateway, "prompts/get", "--prompt-name", "review", "--prompt-args", "instance=laptop")
        read = [line for line in gateway.audit() if line["event"] == "resource"]
    assert listed["uri"] == "opencode://instances"
    assert len(templates) == 2
    assert content["text"].startswith("no instance is registered: ")
    assert {each["name"] for each in prompts} == {"stand-up", "review"}
    assert '`instance` "laptop"' in got["messages"][0]["content"]["text"]
    assert [(line["resource"], line["login"], line["outcome"]) for line in read] == [
        ("opencode://instances", "olga", "ok")
    ]
