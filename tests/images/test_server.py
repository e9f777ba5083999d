"""The server's image, started as docs/gateways.md says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client

from images.containers import container_name, docker, exists
from support.chat.mcp_client import ToolClient
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from images.containers import Image
    from images.documented import Documented
    from support.chat.mcp_client import Era, Progress
    from support.opencodes.opencode import ServedOpenCode
    from support.opencodes.scripted_model import ScriptedModel

SHELLS = ("/usr/bin/bash", "/usr/bin/dash")


@asynccontextmanager
async def connected(command: Sequence[str], era: Era = "2026-07-28") -> AsyncIterator[ToolClient]:
    """Start `command` as an MCP server and connect to it, with the SDK's client."""
    server = StdioServerParameters(command=command[0], args=list(command[1:]), env=dict(os.environ))
    async with Client(stdio_client(server), mode=era) as client:
        yield ToolClient(client)


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_the_documented_line_drives_a_registered_opencode_and_streams_its_answer(
    documented: Documented, laptop: ServedOpenCode, model: ScriptedModel, era: Era
) -> None:
    gate = f"images-first-{era}"
    seen: list[Progress] = []
    async with connected(documented.run(), era) as client:
        (row,) = (await client.call("instances")).structured["instances"]
        assert (row["name"], row["directory"]) == ("laptop", str(laptop.cwd))
        message = f"several plain words GATE:{gate} last"
        turn = asyncio.create_task(
            client.call("send", on_progress=seen.append, instance="laptop", message=message, session="new")
        )
        await eventually_async(lambda: any("words" in note.message for note in seen), within=30)
        model.release(gate)
        answer = await turn
    assert answer.structured["result"] == "done"
    assert answer.structured["text"] == "echo: several plain words  last"


@pytest.mark.parametrize("account", ["1:1", "2000000000:2000000000"])
async def test_it_runs_as_any_user(documented: Documented, account: str) -> None:
    command = documented.run(f"--user={account}")
    async with connected(command) as client:
        answer = await client.call("instances")
    # It works, and this user may not read the directory, as it should be.
    assert answer.structured["instances"] == []
    assert "cannot be read" in answer.text


async def test_it_needs_no_shell(documented: Documented, server_image: Image) -> None:
    without = tuple(f"--volume=/dev/null:{shell}:ro" for shell in SHELLS)
    for shell in ("/bin/sh", *SHELLS):
        assert server_image.run(shell, "-c", "exit 0", options=without, check=False).returncode == 126
    async with connected(documented.run(*without)) as client:
        assert len((await client.call("instances")).structured["instances"]) == 1


@contextmanager
def greeted(documented: Documented, container: str) -> Iterator[subprocess.Popen[bytes]]:
    """Yield the `docker run` of a server that has answered its first request; `container` is its name."""
    run = subprocess.Popen(documented.run(f"--name={container}"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert run.stdin is not None
    assert run.stdout is not None
    parameters = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": parameters}
    try:
        run.stdin.write(json.dumps(request).encode() + b"\n")
        run.stdin.flush()
        assert json.loads(run.stdout.readline())["result"]["serverInfo"]
        yield run
    finally:
        run.kill()
        run.wait()
        run.stdin.close()
        run.stdout.close()


def test_its_container_is_gone_when_its_client_closes_its_input(documented: Documented) -> None:
    container = container_name()
    with greeted(documented, container) as run:
        assert run.stdin is not None
        run.stdin.close()
        assert run.wait(30) == 0
    assert not exists(container)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_its_container_is_gone_when_its_client_is_killed(documented: Documented, number: signal.Signals) -> None:
    container = container_name()
    with greeted(documented, container) as run:
        assert exists(container)
        run.send_signal(number)
        eventually(lambda: not exists(container), "the container is gone")


def test_it_ends_when_the_engine_stops_it(documented: Documented) -> None:
    container = container_name()
    with greeted(documented, container) as run:
        docker("stop", container)
        # 137 would say that it had to be killed.
        assert run.wait(30) == 143


def test_it_says_what_is_wrong_with_a_setting_and_does_not_start(documented: Documented) -> None:
    done = subprocess.run(documented.run("--env=SEND_TIMEOUT_MS=soon"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("opencode-mcp: SEND_TIMEOUT_MS is 'soon'")
