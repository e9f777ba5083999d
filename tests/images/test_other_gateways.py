"""The server's image behind launchers and gateways of other people, configured as docs/gateways.md shows."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest
from mcp.client import Client

from support.chat.mcp_client import ToolClient
from support.gateway.service import Gateway
from support.ports import free_port
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from images.documented import Documented
    from images.others import Others
    from support.chat.mcp_client import Era, Progress
    from support.opencodes.scripted_model import ScriptedModel

DOCUMENTED_PORT = "8096"
DOCKER_HOST = {name: value for name, value in os.environ.items() if name == "DOCKER_HOST"}


@pytest.fixture
def mcp_json(documented: Documented, tmp_path: Path) -> Path:
    """The `mcpServers` file."""
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps(documented.mcp_servers()))
    return path


async def drive(client: ToolClient, model: ScriptedModel, gate: str, *, streams: bool) -> None:
    """List, send, see its text come in while the model is still held back (if it `streams`), and read it again."""
    assert set(await client.tools()) >= {"instances", "send", "read", "reply"}
    (row,) = (await client.call("instances")).structured["instances"]
    assert row["name"] == "laptop"
    seen: list[Progress] = []
    message = f"several plain words GATE:{gate} last"
    turn = asyncio.create_task(
        client.call("send", on_progress=seen.append, instance="laptop", message=message, session="new")
    )
    await eventually_async(lambda: model.reached(gate), within=30)
    if streams:
        await eventually_async(lambda: any("words" in note.message for note in seen), within=30)
    model.release(gate)
    answer = await turn
    assert not answer.is_error
    assert answer.structured["text"] == "echo: several plain words  last"
    assert bool(seen) == streams
    read = await client.call("read", instance="laptop", session=answer.structured["session"])
    assert "echo: several plain words  last" in read.text


@pytest.mark.usefixtures("mcp_json")
def test_the_inspector_finds_the_schemas_of_its_tools_good(
    documented: Documented, others: Others, tmp_path: Path
) -> None:
    done = others.run(documented.command("inspector"), tmp_path)
    assert done.returncode == 0, done.stderr
    tools = {tool["name"]: tool for tool in json.loads(done.stdout)["result"]["tools"]}
    assert set(tools) >= {"instances", "send", "read", "reply"}
    assert tools["send"]["annotations"]
    # The server says that it was given no place for its journal; that is no fault of a schema.
    said = [line for line in done.stderr.lower().splitlines() if "opencode_journal" not in line]
    assert "warning" not in "\n".join(said)


@pytest.mark.usefixtures("mcp_json")
def test_the_inspector_calls_a_tool(documented: Documented, others: Others, tmp_path: Path) -> None:
    command = documented.command("inspector")
    command = [*command[: command.index("--method")], "--method", "tools/call", "--tool-name", "instances"]
    done = others.run([*command, "--format", "json"], tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["result"]["structuredContent"]["instances"]
    assert row["name"] == "laptop"


@pytest.mark.usefixtures("mcp_json")
async def test_behind_mcp_proxy_all_works_but_progress(
    documented: Documented, others: Others, model: ScriptedModel, tmp_path: Path
) -> None:
    port = free_port()
    command = with_port(documented.command("mcp-proxy"), port)
    with others.running(command, tmp_path, port):
        async with Client(f"http://127.0.0.1:{port}/servers/opencode/mcp", mode="legacy") as client:
            await drive(ToolClient(client), model, "behind-mcp-proxy", streams=False)


async def test_behind_supergateway_all_works(
    documented: Documented, others: Others, model: ScriptedModel, tmp_path: Path
) -> None:
    port = free_port()
    command = with_port(documented.command("supergateway"), port)
    with others.running(command, tmp_path, port):
        async with Client(f"http://127.0.0.1:{port}/mcp", mode="legacy") as client:
            await drive(ToolClient(client), model, "behind-supergateway", streams=True)


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_behind_a_gateway_with_a_flat_servers_json_all_works(
    documented: Documented, model: ScriptedModel, tmp_path: Path, era: Era
) -> None:
    servers = documented.servers()
    assert servers["opencode"]["tools"] == "*"
    with Gateway(tmp_path / "gateway", servers, env=DOCKER_HOST) as gateway:
        async with gateway.client(era=era) as client:
            await drive(client, model, f"behind-flat-{era}", streams=True)


def with_port(command: list[str], port: int) -> list[str]:
    """Return the command with a free port in place of the page's."""
    assert DOCUMENTED_PORT in command
    return [str(port) if word == DOCUMENTED_PORT else word for word in command]
