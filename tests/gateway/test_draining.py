"""The end of the service: whoever waits for a call gets an answer, and nobody is kept who comes late."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from opencode_gateway.service import DRAIN_SECONDS
from support.clients.one_call import Sdk, one_call
from support.gateway.service import Gateway, fixture_entry
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from support.chat.mcp_client import Answer, Era, ToolClient

ERAS: tuple[Era, ...] = ("legacy", "2026-07-28")
SDKS: tuple[tuple[Sdk, Era], ...] = (
    ("python1", "legacy"),
    ("typescript1", "legacy"),
    ("typescript2", "legacy"),
    ("typescript2", "2026-07-28"),
)
ANSWERED_WITHIN = 55.0
"""Seconds after the signal, on a machine that does much else; a client that waits for a cut stream waits for 60."""


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    """One that is not started yet, whose server writes down whose call was cancelled."""
    return Gateway(tmp_path, {"fixture": fixture_entry(env={"FIXTURE_CANCELLED": str(tmp_path / "cancelled")})})


async def begun(client: ToolClient, **arguments: object) -> asyncio.Task[Answer]:
    """Return a call of `reply` that runs in the server."""
    runs = asyncio.Event()
    call = asyncio.create_task(client.call("reply", **arguments, on_progress=lambda _: runs.set()))
    await runs.wait()
    return call


async def told_to_end(gateway: Gateway) -> None:
    """Send the signal, and return once it is heeded."""
    gateway.process.terminate()
    await eventually_async(lambda: "draining: 1 requests run" in gateway.log, "the beginning of the end")


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_that_ends_soon_is_answered_as_ever(gateway: Gateway, tmp_path: Path, era: Era) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with gateway:
        async with gateway.client(era=era) as client:
            await client.tools()  # otherwise the SDK asks for them after the call
            call = await begun(client, instance="laptop", steps=1, until=str(gate))
            await told_to_end(gateway)
            await asyncio.to_thread(gate.write_text, "go")
            answer = await call
        assert await asyncio.to_thread(gateway.stop) == 0

    assert (answer.text, answer.is_error) == ("laptop", False)


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_that_goes_on_is_answered_with_where_to_look(gateway: Gateway, era: Era) -> None:
    with gateway:
        (child,) = gateway.process.children()
        async with gateway.client(era=era) as client:
            await client.tools()
            call = await begun(client, instance="laptop", session="ses_7", steps=0)
            began = time.monotonic()
            gateway.process.terminate()
            answer = await call
            took = time.monotonic() - began
            # It was not by the child's end that the call ended.
            assert "broke off" not in gateway.log
        assert await asyncio.to_thread(gateway.stop) == 0
        assert not child.is_running()

    assert answer.is_error
    assert answer.text == (
        "the gateway is being restarted and cannot wait for reply any longer. It is still running: "
        '`read` with instance "laptop" and session "ses_7" shows how far it is; do not send it again'
    )
    assert DRAIN_SECONDS - 1 < took < ANSWERED_WITHIN
    assert gateway.audit()[-1]["outcome"] == "unfinished"


@pytest.mark.parametrize(("sdk", "era"), SDKS)
async def test_every_sdk_gets_that_answer_and_does_not_wait_out_its_minute(
    gateway: Gateway, sdk: Sdk, era: Era
) -> None:
    with gateway:
        async with one_call(
            sdk, era, f"{gateway.url}/mcp", "all-token", "reply", instance="laptop", session="ses_7", steps=0
        ) as call:
            assert await call.next() == {"progress": "laptop waits"}
            began = time.monotonic()
            gateway.process.terminate()
            answer = (await call.next())["answer"]

    assert answer["isError"]
    assert 'instance "laptop" and session "ses_7" shows how far it is' in answer["content"][0]["text"]
    assert time.monotonic() - began < ANSWERED_WITHIN


@pytest.mark.parametrize(("sdk", "era"), SDKS)
async def test_every_sdk_is_told_at_once_that_the_server_broke_off(gateway: Gateway, sdk: Sdk, era: Era) -> None:
    with gateway:
        (child,) = gateway.process.children()
        async with one_call(
            sdk, era, f"{gateway.url}/mcp", "all-token", "reply", instance="laptop", session="ses_7", steps=0
        ) as call:
            assert await call.next() == {"progress": "laptop waits"}
            began = time.monotonic()
            os.kill(child.pid, signal.SIGKILL)
            answer = (await call.next())["answer"]
            took = time.monotonic() - began

    assert answer["isError"]
    assert answer["content"][0]["text"] == (
        "the server behind the gateway broke off before it answered reply. Whether it was done is not known: "
        'look with `read` with instance "laptop" and session "ses_7" before you do it again'
    )
    assert took < ANSWERED_WITHIN


async def test_what_comes_meanwhile_is_told_to_come_again(gateway: Gateway, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with gateway:
        async with gateway.client() as client:
            await client.tools()
            call = await begun(client, instance="laptop", steps=1, until=str(gate))
            await told_to_end(gateway)
            late = await asyncio.to_thread(
                gateway.request, "POST", "/mcp", {"Authorization": "Bearer all-token"}, b"{}"
            )
            health = await asyncio.to_thread(gateway.get, "/healthz")
            await asyncio.to_thread(gate.write_text, "go")
            await call

    assert (late.status_code, late.headers["Retry-After"]) == (503, "5")
    assert (health.status_code, health.text) == (503, "draining\n")


async def test_a_second_signal_does_not_wait(gateway: Gateway) -> None:
    with gateway:
        async with gateway.client() as client:
            await client.tools()
            call = await begun(client, instance="laptop", steps=0)
            await told_to_end(gateway)
            assert await asyncio.to_thread(gateway.stop) == 0
            call.cancel()

    assert "are answered with what goes on" not in gateway.log, "it waited until the time was over"
