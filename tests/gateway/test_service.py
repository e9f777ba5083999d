"""The service as a whole: starting, ending, and what it leaves behind."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil
import pytest

from opencode_gateway.errors import GatewayError
from opencode_gateway.logs import RECORDS
from opencode_gateway.service import CONNECTIONS, listening
from support.gateway.service import Gateway, fixture_entry
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_with_its_children_and_code_0(tmp_path: Path, name: str) -> None:
    gateway = Gateway(tmp_path, {"fixture": fixture_entry()})
    gateway.start()
    children = gateway.process.children(recursive=True)
    gateway.process.send_signal(signal.Signals[name])

    assert gateway.stop() == 0
    assert children
    assert psutil.wait_procs(children, timeout=40)[1] == []


def test_clients_that_only_hold_connections_do_not_keep_it_from_ending(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"fixture": fixture_entry()}) as gateway, socket.socket() as idle, socket.socket() as slow:
        idle.connect(("127.0.0.1", gateway.port))
        slow.connect(("127.0.0.1", gateway.port))
        slow.sendall(f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nContent-Le".encode())

        assert gateway.stop() == 0


def test_more_connections_than_it_holds_are_told_so_at_once(gateway: Gateway) -> None:
    with ExitStack() as held:
        for _ in range(CONNECTIONS - 1):
            held.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
        answer = gateway.get("/healthz")

    assert (answer.status_code, answer.text) == (503, "Service Unavailable")
    eventually(lambda: gateway.get("/healthz").status_code == 200, "room again")


async def test_a_client_needs_no_session_so_it_outlives_a_restart(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"fixture": fixture_entry()}) as gateway:
        async with gateway.client(era="legacy") as client:
            before = await client.call("send", instance="laptop")
            await asyncio.to_thread(gateway.stop)
            await asyncio.to_thread(gateway.start)
            after = await client.call("send", instance="laptop")

    assert before.structured == after.structured == {"instance": "laptop-0", "session": "ses_1", "text": ""}


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
async def test_answers_are_sent_at_once(listen: str) -> None:
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_connection(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(on_connection, sock=listening(listen)) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        assert await accepted
        writer.close()


@pytest.mark.parametrize("listen", ["127.0.0.1:99999", "[::1]:99999"])
def test_a_port_that_cannot_be_is_said(listen: str) -> None:
    with pytest.raises(GatewayError, match=r"listen: .* cannot be listened on"):
        listening(listen)


def test_a_port_that_is_taken_ends_it_before_it_starts_anything(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        gateway = Gateway(tmp_path, {"fixture": fixture_entry()}, listen=listen)
        with pytest.raises(RuntimeError, match="the gateway ended with 1"):
            gateway.start()

    assert f"listen: {listen} cannot be listened on: [Errno 98] Address already in use" in gateway.log


async def test_its_log_has_no_tokens_and_no_messages(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"fixture": fixture_entry()}) as gateway:
        async with gateway.client() as client:
            await client.call("send", instance="laptop", message="the secret plan")
            await client.call("reply", instance="the-secret-plan", die=True)
        gateway.get("/callback?code=secretcode")
        eventually(lambda: "broke off" in gateway.log, "the warning of the lost child")
        log = gateway.log

    assert not re.search(r"all-token|secret.plan|secretcode", log)


def test_strangers_do_not_fill_its_log(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"fixture": fixture_entry()}) as gateway:
        before = len(gateway.log)
        for _ in range(3 * RECORDS):
            gateway.get("/", Connection="upgrade", Upgrade="websocket")
        said = gateway.log[before:]

    assert 0 < said.count("WARNING uvicorn.error: ") <= 2 * RECORDS


def test_no_line_of_its_log_is_an_audit_line_whatever_is_logged() -> None:
    program = r"""
import logging
from opencode_gateway.service import log_to_stderr
log_to_stderr()
try:
    raise ValueError("answer\n{}")
except ValueError:
    logging.getLogger("any").exception("read\n{}\r{}")
"""
    log = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stderr

    assert r" ERROR any: read\n{}\r{}" in log.splitlines()[0]
    assert "  | {}" in log.splitlines()
    assert not [line for line in log.splitlines() if line.startswith("{")]
