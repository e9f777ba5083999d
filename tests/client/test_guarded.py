"""OpenCode 1 behind the guard: on a port with a key without a relay, on a socket of the user's alone with one."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil

from client.launched import Launched
from client.machine2 import guard_of, key_of, told
from support.chat.plain_http import NO_TLS
from support.line.sshd import Sshd
from support.waiting import eventually

if TYPE_CHECKING:
    from client.launched import Machine


def test_without_a_relay_the_guard_asks_for_the_key_that_lies_beside_the_registration(machine: Machine) -> None:
    with Launched(machine, "--headless") as launched:
        state = launched.registered()
        name = state["name"]
        key = key_of(machine, name)
        assert len(key) >= 32
        assert told(machine) == told(machine) | {
            "guard": 1,
            "generation": 1,
            "version": state["opencode_version"],
            "rights": ["approve", "drive", "observe"],
            "directories": [{"path": str(machine.project), "name": name, "opened": True}],
        }
        with guard_of(machine) as client:
            session = client.post("/session", json={}).raise_for_status().json()["id"]
            assert client.post(f"/session/{session}/shell", json={"command": "id"}).status_code == 403
        with guard_of(machine, auth=("opencode", "x")) as client:
            assert client.get("/session").status_code == 401
        assert all(key not in str(process.cmdline()) for process in launched.family())
        assert key not in (machine.registry_dir / f"{name}.json").read_text()
        launched.launcher().kill()
        eventually(lambda: list(machine.registry_dir.iterdir()) == [], "key and registration go")


def test_with_a_relay_the_tunnel_leads_to_a_socket_of_the_users_alone(machine: Machine, tmp_path: Path) -> None:
    with (
        Sshd(tmp_path / "relay") as relay,
        Launched(machine, "--headless", env={"RELAY_SSH_CMD": relay.ssh_command}) as launched,
    ):
        state = launched.registered()
        listening = [c for c in launched.launcher().net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening == []
        sockets = {str(c.laddr) for c in launched.launcher().net_connections("unix")}
        (socket,) = (Path(path) for path in sockets if path.endswith(".sock"))
        assert stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        with httpx.Client(
            base_url=f"http://127.0.0.1:{state['port']}", trust_env=False, timeout=30, verify=NO_TLS
        ) as client:
            assert client.get("/global/health").json()["healthy"] is True
            assert client.get("/opencode-relay/guard").json()["generation"] == 1
            assert client.get("/config").status_code == 403
        assert not list(machine.registry_dir.glob(".*.key")), "a socket needs none"
        launched.launcher().kill()
        eventually(lambda: not socket.exists(), "the guardian removes the socket")


def test_a_home_with_a_path_too_long_for_a_socket_is_no_obstacle(machine: Machine, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "state"
    env = {"XDG_STATE_HOME": str(deep)}
    with Sshd(tmp_path / "relay") as relay:
        launched = Launched(machine, "--headless", env={**env, "RELAY_SSH_CMD": relay.ssh_command})
        with launched:
            eventually(machine.registrations, "the registration", within=60)
            (registration,) = machine.registrations().values()
            url = f"http://127.0.0.1:{registration['port']}/global/health"
            assert httpx.get(url, trust_env=False, timeout=30, verify=NO_TLS).status_code == 200
