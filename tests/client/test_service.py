"""OpenCode 2's service behind a headless launcher: started, followed, revived, and believed only if it is its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from client.fake_service import FakeService
from client.fake_stranger import FakeStranger
from client.launched import Launched
from client.machine2 import guard_of, told
from opencode_connected.agents import opencode2, outside
from opencode_connected.agents.generation import installed
from opencode_connected.agents.service import Service
from opencode_connected.errors import LauncherError, OpenCodeMissing
from opencode_connected.loopback import Unanswered
from support.chat.plain_http import NO_TLS
from support.line.sshd import Sshd
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from client.launched import Machine
    from support.opencodes.opencode2 import Service2

COMES_UP = 90.0


def is_healthy(machine: Machine) -> bool:
    with guard_of(machine) as client:
        return client.get("/global/health").status_code == 200


def said(machine: Machine, words: str) -> bool:
    return any(words in path.read_text() for path in machine.state_dir.glob("log/*"))


def test_a_headless_launcher_starts_the_service_follows_and_revives_it(machine2: Machine, service: Service2) -> None:
    with Launched(machine2, "--headless") as launched:
        name = launched.registered()["name"]
        before = service.record()
        assert launched.opencode().pid == before["pid"]
        (registration,) = machine2.registrations().values()
        assert registration["localPort"] == service.port
        assert {entry["path"]: entry["opened"] for entry in told(machine2)["directories"]} == {
            str(machine2.project): True,
            str(machine2.home.root): False,
        }
        assert f"{name!r} is registered, OpenCode's service is on port {service.port}" in launched.screen

        with guard_of(machine2) as client:
            body = {"location": {"directory": str(machine2.project)}, "title": "Fix the login"}
            session = client.post("/api/session", json=body).raise_for_status().json()["data"]["id"]
        listed = machine2.run("sessions").stdout
        assert f"{session}  Fix the login" in listed

        service.kill()
        eventually(lambda: service.runs() and is_healthy(machine2), "it is revived", within=COMES_UP)
        assert service.pid != before["pid"]
        service.restart()
        eventually(lambda: is_healthy(machine2), "the guard has found the new one", within=COMES_UP)
        eventually(lambda: said(machine2, "OpenCode's service was replaced"), "the log says so", within=COMES_UP)
        assert machine2.registrations() == {name: registration}, "readers notice nothing"
        eventually(
            lambda: launched.state()["opencode_pid"] == service.pid, "the state file has the new one", within=COMES_UP
        )

        launched.launcher().send_signal(signal.SIGTERM)
        assert launched.ended() == -signal.SIGTERM
        assert machine2.registrations() == {}
    assert service.runs(), "the service is never stopped"
    assert machine2.run("cleanup").stdout == "nothing to clean up\n"


def test_the_configured_rights_and_directories_are_told_and_enforced(machine2: Machine, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    config = machine2.config_home / "opencode-relay" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'remote = "observe"\ndirectories = ["{work}"]\n')
    with Launched(machine2, "--headless") as launched:
        launched.registered()
        document = told(machine2)
        assert document["rights"] == ["observe"]
        assert [entry["path"] for entry in document["directories"]] == [str(machine2.project), str(work)]
        with guard_of(machine2) as client:
            refused = client.post("/api/session", json={"location": {"directory": str(work)}})
        assert refused.status_code == 403
        assert refused.json()["data"]["right"] == "drive"
        (shown,) = json.loads(machine2.run("status", "--json").stdout)["instances"]
        assert (shown["rights"], shown["directories"]) == (["observe"], [str(work)])
        hops = {hop["hop"]: hop for hop in json.loads(machine2.run("doctor", "--json").stdout)["hops"]}
        assert hops["access"]["detail"].startswith("observe, in directories where opencode-connected runs, and below")
        assert hops["service"]["detail"].startswith(document["version"])


def test_with_a_relay_the_tunnel_leads_to_the_guard_of_all_directories(
    machine2: Machine, service: Service2, tmp_path: Path
) -> None:
    with Sshd(tmp_path / "relay") as relay:
        with Launched(machine2, "--headless", env={"RELAY_SSH_CMD": relay.ssh_command}) as launched:
            eventually(machine2.registrations, "the registration", within=COMES_UP)
            ((name, registration),) = machine2.registrations().items()
            assert registration["localPort"] == service.port != registration["port"]
            assert registration["cwd"] == str(machine2.project)
            url = f"http://127.0.0.1:{registration['port']}"
            document = httpx.get(f"{url}/opencode-relay/guard", trust_env=False, timeout=30, verify=NO_TLS).json()
            assert {entry.get("name") for entry in document["directories"]} == {name, None}
            assert (
                httpx.get(f"{url}/api/session/active", trust_env=False, timeout=30, verify=NO_TLS).status_code == 200
            )
            assert httpx.get(f"{url}/api/config", trust_env=False, timeout=30, verify=NO_TLS).status_code == 403
            launched.launcher().send_signal(signal.SIGTERM)
            launched.ended()
        eventually(lambda: machine2.registrations() == {}, "the relay has it no more")
    assert service.runs()


def test_a_port_that_somebody_else_has_is_quoted_from_opencodes_log(machine2: Machine, service: Service2) -> None:
    with socket.create_server(("127.0.0.1", service.port)):
        refused = machine2.run("--headless")
    assert refused.returncode == 3
    assert refused.stderr.count("\n") == 1
    assert "OpenCode's service did not come up within 30 s: " in refused.stderr
    assert f"port {service.port} on 127.0.0.1 is already in use" in refused.stderr


def record(path: Path, *, mode: int = 0o600, **changes: object) -> opencode2.Record | None:
    """Write a registry file and read it."""
    value: dict[str, Any] = {
        "id": "x",
        "version": "2.0.15",
        "url": "http://127.0.0.1:49374",
        "pid": os.getpid(),
        "password": "secret",
    }
    path.write_text(json.dumps(value | changes))
    path.chmod(mode)
    return opencode2.read_record(path)


def test_a_registry_file_is_read_only_if_it_is_whole_and_the_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "service.json"
    read = record(path)
    assert read is not None
    assert (read.port, read.credentials) == (49374, ("opencode", "secret"))
    assert "secret" not in repr(read)
    assert record(path, mode=0o644) is None
    for changes in (
        {"url": "https://127.0.0.1:49374"},
        {"url": "http://127.0.0.1:80"},
        {"url": 7},
        {"pid": "1"},
        {"pid": True},
        {"pid": -1},
        {"password": "a\r\nb"},
        {"password": None},
        {"version": "x" * 20_000},
    ):
        assert record(path, **changes) is None
    link = tmp_path / "link.json"
    record(path)
    link.symlink_to(path)
    assert opencode2.read_record(link) is None
    path.write_text("[")
    assert opencode2.read_record(path) is None
    assert opencode2.read_record(tmp_path / "none.json") is None


def test_a_process_that_does_not_own_the_port_gets_no_password(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        mine = record(tmp_path / "service.json", url=f"http://127.0.0.1:{port}")
        assert mine
        assert opencode2.verify(mine) is None
        other = record(tmp_path / "service.json", url=f"http://127.0.0.1:{port}", pid=os.getppid())
        assert other
        assert "does not listen on port" in (opencode2.verify(other) or "")
    gone = record(tmp_path / "service.json", pid=max(psutil.pids()) + 1_000_000)
    assert gone
    assert "has ended" in (opencode2.verify(gone) or "")


_LETS_GO = """
import socket
with socket.create_server(("127.0.0.1", 0)) as listening:
    print(listening.getsockname()[1], flush=True)
    input()
print(flush=True)
input()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a program of another user")
def test_a_port_that_another_user_takes_gets_no_password_though_the_process_number_lives(
    tmp_path: Path,
) -> None:
    file = opencode2.registry_file({"XDG_STATE_HOME": str(tmp_path)})
    file.parent.mkdir()
    logged: list[str] = []
    service = Service(installed("opencode", "2.0.15"), {"XDG_STATE_HOME": str(tmp_path)}, logged.append)
    command = [sys.executable, "-c", _LETS_GO]
    with (
        asyncio.Runner() as loop,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        record(file, url=f"http://127.0.0.1:{port}", pid=process.pid)
        assert loop.run(service.look()) is not None
        assert loop.run(service.target()) is not None
        print(file=process.stdin, flush=True)
        process.stdout.readline()
        with FakeStranger(port) as stranger:
            assert process.poll() is None
            assert loop.run(service.target()) is None
            assert stranger.heard() == ""
        print(file=process.stdin, flush=True)
    assert logged[-1].endswith(f"does not listen on port {port}")


def test_a_service_that_listens_for_the_network_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as open_to_all:
        found = record(tmp_path / "service.json", url=f"http://0.0.0.0:{open_to_all.getsockname()[1]}")
        assert found
        with pytest.raises(LauncherError, match=r"listens on 0\.0\.0\.0.*service unset hostname"):
            opencode2.verify(found)


def test_a_service_without_a_needed_operation_is_refused_by_name() -> None:
    lacks = pytest.raises(OpenCodeMissing, match=r"OpenCode 2\.9\.0 cannot be driven .* no session\.prompt")
    with FakeService(without="session.prompt") as fake, lacks:
        opencode2.refuse_undrivable(fake.record)
    with FakeService() as fake:
        opencode2.refuse_undrivable(fake.record)
        fake.is_odd = True
        with pytest.raises(Unanswered, match="does not describe its API"):
            opencode2.refuse_undrivable(fake.record)


def test_the_real_service_has_all_needed_operations(service2: Service2) -> None:
    found = opencode2.read_record(service2.registry)
    assert found
    assert opencode2.missing_operations(found) == []


def test_in_a_unit_of_systemds_the_service_is_started_in_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ["/bin/opencode", "service", "start"]
    environment = {"PATH": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "SHELL": "/bin/bash", "HOME": "/home/ann"}
    assert outside.start_commands("/bin/opencode", environment) == [start]
    monkeypatch.setattr(outside, "_is_in_a_unit", lambda environment: True)
    assert outside.start_commands("/bin/opencode", environment) == [start], "there is no systemd-run"
    (tmp_path / "systemd-run").write_text("#!/bin/sh\n")
    (tmp_path / "systemd-run").chmod(0o755)
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd" / "private").touch()
    outer, inner = outside.start_commands("/bin/opencode", environment)
    assert inner == start
    assert outer[:4] == ["env", f"XDG_RUNTIME_DIR={tmp_path}", "systemd-run", "--user"]
    assert "--setenv=HOME=/home/ann" in outer
    assert outer[-4:] == ["--", "/bin/bash", "-lc", "exec /bin/opencode service start"]
