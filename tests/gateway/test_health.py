"""`/healthz` and `opencode-gateway health`: they ask the children, and say little."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
from starlette.requests import Request

from opencode_gateway.calls.children import Children
from opencode_gateway.calls.servers import Server
from opencode_gateway.door.health import GatewayHealth
from support.chat.plain_http import NO_TLS
from support.gateway.service import Gateway, fixture_entry
from support.ports import free_port
from support.waiting import eventually

COMMAND = str(Path(sys.executable).with_name("opencode-gateway"))


def health(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, "--config", str(config), "health"], capture_output=True, text=True, check=False)


def test_a_gateway_whose_child_answers_is_well(gateway: Gateway) -> None:
    answer = gateway.get("/healthz")

    assert (answer.status_code, answer.text) == (200, "ok\n")
    done = health(gateway.config)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_health_starts_a_child_that_died(gateway: Gateway) -> None:
    (child,) = gateway.process.children()
    child.kill()

    eventually(lambda: gateway.get("/healthz").status_code == 200, "another child", within=60)
    assert [other.pid for other in gateway.process.children() if other.is_running()] != [child.pid]


def test_a_server_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"broken": {"command": "/nonexistent/program"}, "fixture": fixture_entry()}) as gateway:
        done = health(gateway.config)

    assert (done.returncode, done.stderr) == (1, "opencode-gateway: no answer from: broken\n")


async def test_a_child_that_hangs_is_told_and_requests_meanwhile_share_one_question(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"fixture": fixture_entry()}) as gateway:
        (child,) = gateway.process.children()
        os.kill(child.pid, signal.SIGSTOP)
        try:
            async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30, verify=NO_TLS) as client:
                answers = await asyncio.gather(*(client.get("/healthz") for _ in range(20)))
        finally:
            os.kill(child.pid, signal.SIGCONT)
        assert {(answer.status_code, answer.text) for answer in answers} == {(503, "no answer from: fixture\n")}
        assert gateway.log.count("the server fixture does not answer") == 1
        assert gateway.get("/healthz").status_code == 200


def test_a_gateway_that_does_not_run_is_not_well(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, {"fixture": fixture_entry()})

    done = health(gateway.config)

    assert done.returncode == 1
    assert done.stderr == f"opencode-gateway: nothing answers on 127.0.0.1:{gateway.port}: Connection refused\n"


def test_something_else_on_the_port_is_not_well(tmp_path: Path) -> None:
    port = free_port()
    gateway = Gateway(tmp_path, {"fixture": fixture_entry()}, listen=f"127.0.0.1:{port}")
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)], stdout=-1, stderr=-1, cwd=tmp_path
    ) as other:
        try:
            done = health(gateway.config)
            while "nothing answers" in done.stderr:  # it does not listen yet
                done = health(gateway.config)
        finally:
            other.terminate()

    assert done.returncode == 1


async def test_a_child_that_starts_slowly_is_not_started_anew_by_whoever_asks_meanwhile(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    servers = {"fixture": Server.model_validate(fixture_entry(env={"FIXTURE_GATE": str(gate)}))}
    children = Children(servers, os.environ, 45.0, "1")
    impatient = GatewayHealth(children, seconds=0.5)
    others = set(psutil.Process().children())  # what tests before this one have started

    async def asked() -> int:
        return (await impatient.endpoint(Request({"type": "http"}))).status_code

    def started() -> set[psutil.Process]:
        return set(psutil.Process().children()) - others

    try:
        assert await asked() == 503
        (first,) = started()
        assert await asked() == 503
        await asyncio.to_thread(gate.write_text, "go")
        await children.all[0].ask()
        assert started() == {first}
    finally:
        await children.all[0].end()
