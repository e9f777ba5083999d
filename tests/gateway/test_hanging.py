"""A child that hangs is replaced, and whoever waits for it is told; one that is only busy, or was paused, is not."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from mcp.shared.exceptions import MCPError

from opencode_gateway.calls.children import ServerChild
from opencode_gateway.calls.hanging import Pulse
from opencode_gateway.calls.servers import Server
from support.gateway.service import FIXTURE_SERVER, Gateway, fixture_entry
from support.processes import has_ended
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from support.chat.mcp_client import Era

ERAS: tuple[Era, ...] = ("legacy", "2026-07-28")


def child_of(gateway: Gateway) -> psutil.Process:
    (child,) = [each for each in gateway.process.children() if not has_ended(each)]
    return child


def has_another(gateway: Gateway, than: psutil.Process) -> bool:
    return [each.pid for each in gateway.process.children() if not has_ended(each)] not in ([], [than.pid])


@pytest.mark.parametrize("era", ERAS)
async def test_whoever_waits_for_a_child_that_hangs_is_told_and_the_next_one_is_served(
    tmp_path: Path, era: Era
) -> None:
    entry = fixture_entry(env={"FIXTURE_CANCELLED": str(tmp_path / "cancelled")})
    with Gateway(tmp_path, {"fixture": entry}) as gateway:
        hung = child_of(gateway)
        async with gateway.client(era=era) as client, gateway.client(era=era) as other:
            await client.tools()
            runs = asyncio.Event()
            call = asyncio.create_task(
                client.call("reply", instance="laptop", session="ses_7", steps=0, on_progress=lambda _: runs.set())
            )
            await runs.wait()
            hung.suspend()
            asked = asyncio.create_task(other.tools())
            answer = await call
            with pytest.raises(MCPError, match="ask again"):
                await asked
            await eventually_async(lambda: has_another(gateway, hung), "another child")
            assert (await client.call("send", instance="x")).structured["instance"] == "x-0"

        assert has_ended(hung)
        assert not psutil.pid_exists(hung.pid)  # no zombie either

    assert answer.is_error
    assert answer.text == (
        "the server behind the gateway hung, so it is ended and started anew, and reply gets no answer. "
        'Whether it was done is not known: look with `read` with instance "laptop" and session "ses_7" '
        "before you do it again"
    )


async def test_a_child_that_hangs_while_nobody_calls_is_replaced_too(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"fixture": fixture_entry()}) as gateway:
        hung = child_of(gateway)
        hung.suspend()
        await eventually_async(lambda: has_another(gateway, hung), "another child")


IS_BUSY = """
import pathlib, sys, time
from mcp.server.mcpserver import MCPServer
server = MCPServer("busy")
@server.tool()
async def read(until: str) -> str:
    pathlib.Path(until).read_text()
    return "done"
server.run("stdio")
"""


async def test_a_server_that_its_own_tools_block_is_left_as_long_as_its_entry_says(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    entry = {"command": sys.executable, "args": ["-c", IS_BUSY], "silent_seconds": 3600}
    impatient = {**entry, "silent_seconds": 2}
    with Gateway(
        tmp_path, {"patient": entry, "other": impatient}, capabilities={"observe": ["patient_read", "other_read"]}
    ) as gateway:
        async with gateway.client() as client:
            patient = asyncio.create_task(client.call("patient_read", until=str(gate)))
            assert "hung" in (await client.call("other_read", until=str(gate))).text
            await asyncio.to_thread(gate.write_text, "go")
            assert (await patient).text == "done"


async def test_time_in_which_the_gateway_itself_did_not_run_is_not_counted() -> None:
    server = Server(command=sys.executable, args=(str(FIXTURE_SERVER),))
    child = ServerChild("fixture", server, dict(os.environ), "1")
    async with child.client() as client:
        asked = asyncio.create_task(Pulse().beats(client.session, 3))
        await asyncio.sleep(0)
        # As long as the loop stands still nothing is read, though the child answers.
        time.sleep(4)  # noqa: ASYNC251 - that is what is tested
        assert await asked
    await child.end()


async def test_a_child_that_answers_others_meanwhile_does_not_hang() -> None:
    server = Server(command=sys.executable, args=(str(FIXTURE_SERVER),))
    child = ServerChild("fixture", server, dict(os.environ), "1")
    async with child.client() as client:
        told = await client.call_tool("read", {"instance": "any"})
        process = psutil.Process(int(told.structured_content["pid"]))
        process.suspend()
        pulse = Pulse()
        hears = asyncio.create_task(pulse.beats(client.session, 2))
        for _ in range(40):
            pulse.heard()
            done, _ = await asyncio.wait({hears}, timeout=0.1)
            assert not done, "it was given up"
        assert not await hears  # now that nothing comes any more
        process.resume()
    await child.end()
