"""A Molecule scenario as it was provisioned: its relay, its client hosts, and the keys that the tests hold."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.hosts.hosts import Host, RunningProgram, ShellSession
from support.waiting import eventually

GONE_WITHIN = 15.0
"""Seconds: no registration outlives its session by more."""
BACK_WITHIN = 60.0
"""Seconds from the end of a fault. A launcher takes 0.5 to 10, where the machine has no other work."""
STARTS_WITHIN = 90.0
"""Seconds until all instances are registered, from nothing, on a machine that has other work."""
_PLAY_SECONDS = 300.0
_PROJECT = Path(__file__).parents[3]
KNOWN_HOSTS = "/root/keys/known_hosts"


@dataclass(frozen=True)
class SeenRegistration:
    """One file of the registry directory."""

    name: str
    client: str
    port: int
    local_port: int
    connected_at: str


class ScenarioRelay(Host):
    """The relay. `values`: the variables of the roles, as the scenario's inventory has them."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        super().__init__(name)
        self.tunnel_user: str = values["relay_tunnel_user"]
        self.agent_user: str = values["relay_agent_user"]
        self.gateway_user: str = values["relay_gateway_user"]
        self.registry_dir: str = values["relay_registry_dir"]
        self.state_dir: str = values["relay_state_dir"]
        self.venv: str = values["relay_install_dir"]
        self.port_range: str = values["relay_port_range"]
        self.block_size: int = values["relay_block_size"]
        self.ssh_port: int = values["relay_join_port"]

    def administer(self, *arguments: str, stdin: str = "") -> Any:
        """Run `opencode-relay ARGUMENTS` as root and return the JSON that it prints."""
        return json.loads(self.run(f"{self.venv}/bin/opencode-relay", *arguments, "--json", stdin=stdin).stdout)

    def clients(self) -> dict[str, dict[str, Any]]:
        """Return who is enrolled, by name: key, first and last port."""
        state = json.loads(self.output("cat", "/etc/opencode-relay/clients.json"))
        return {client["name"]: client for client in state["clients"]}

    def block(self, client: str) -> range:
        """Return the ports of an enrolled client."""
        entry = self.clients()[client]
        return range(entry["first"], entry["last"] + 1)

    def registrations(self) -> dict[str, SeenRegistration]:
        """Return what is registered, by name, goodbye notes left out."""
        found = self.output("sh", "-c", 'cat "$1"/*.json 2>/dev/null || true', "sh", self.registry_dir)
        files = [json.loads(line) for line in found.splitlines()]
        return {
            file["name"]: SeenRegistration(
                file["name"], file["client"], file["port"], file["localPort"], file["connectedAt"]
            )
            for file in files
            if "closedAt" not in file
        }

    def registered(self, client: str) -> dict[str, SeenRegistration]:
        """Return what one client has registered."""
        return {name: found for name, found in self.registrations().items() if found.client == client}

    def listens(self, port: int) -> bool:
        """Tell whether anything listens on a TCP port."""
        return bool(self.output("ss", "-Hltn", f"sport = :{port}"))

    def connections(self) -> set[int]:
        """Return the processes of sshd that keep connections of clients."""
        done = self.run("pgrep", "-u", self.tunnel_user, "-x", "sshd|sshd-session", check=False)
        return {int(pid) for pid in done.stdout.split()}

    def agent_pid(self) -> int:
        """Return the agent's process; 0 while there is none."""
        return int(self.output("systemctl", "show", "--value", "-p", "MainPID", "opencode-relay-agent.service"))

    def journal(self) -> str:
        """Return what the agent logged since the relay's boot."""
        return self.output("journalctl", "--boot", "--no-pager", "--unit", "opencode-relay-agent.service")

    def logs(self, text: str) -> None:
        """Wait until the agent has logged this: what it says arrives in the journal a little later."""
        eventually(lambda: text in self.journal(), f"the agent logs: {text}", within=BACK_WITHIN)

    def call_tools(self, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Call tools of the server as the gateway's user, by a real MCP client; return the answers."""
        with self.tools(*calls) as client:
            assert client.ended() == 0, client.errors
            return [json.loads(line) for line in client.lines]

    def tools(self, *calls: tuple[str, dict[str, Any]]) -> RunningProgram:
        """Start calling tools; the answers come as lines of JSON."""
        command = (f"{self.venv}/bin/python", "-m", "support.chat.call_tools", self.registry_dir, json.dumps(calls))
        env = {
            "PYTHONPATH": "/opt/tests",
            "PYTHONDONTWRITEBYTECODE": "1",
            "RELAY_PORT_RANGE": self.port_range,
            "RELAY_STATE_DIR": self.state_dir,
            # OpenCode may take its time where others have just started.
            "HEALTH_CHECK_TIMEOUT_MS": "20000",
        }
        return RunningProgram(self, *command, user=self.gateway_user, env=env)


@dataclass(frozen=True)
class Machine:
    """A client host that Ansible manages, with its person and its name at the relay."""

    host: Host
    person: str
    client: str
    instances: tuple[str, ...]
    """Those that run as services, by what the relay's name for the machine is put before."""
    generation: int
    """Of its OpenCode."""
    model_port: int
    """Where its scripted model listens."""

    @property
    def lines(self) -> int:
        """How many registrations it has: the launchers on OpenCode 2 share one."""
        return 1 if self.generation == 2 else len(self.instances)

    def units(self) -> list[str]:
        """Return the units of its launchers."""
        script = f"basename -a /home/{self.person}/.config/systemd/user/opencode-connected*.service"
        return self.host.output("sh", "-c", script).split()

    def systemctl(self, *arguments: str) -> None:
        """Have the person's own manager do something."""
        self.host.run("systemctl", "--user", "-M", f"{self.person}@.host", *arguments)

    def launcher(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `opencode-connected ARGUMENTS` as the person, to its end, whatever comes of it."""
        command = f"/home/{self.person}/.local/bin/opencode-connected"
        return self.host.run(command, *arguments, user=self.person, env=env, check=False)


@dataclass(frozen=True)
class Attacker:
    """Whoever holds a key, on some host. `key`: its name below /root/keys."""

    host: Host
    relay: ScenarioRelay
    user: str
    key: str

    def ssh_command(self, *options: str, user: str | None = None, to: str = "true") -> tuple[str, ...]:
        """Return an ssh to the relay with this key alone; `to` is the remote command ("" for none)."""
        return (
            *("ssh", "-F", "none", "-i", f"/root/keys/{self.key}", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={KNOWN_HOSTS}", "-o", "LogLevel=VERBOSE"),
            *("-p", str(self.relay.ssh_port), *options, f"{user or self.user}@{self.relay.name}"),
            *((to,) if to else ()),
        )

    def ssh(self, *options: str, to: str = "true") -> subprocess.CompletedProcess[str]:
        """Run that ssh to its end, its input ended at once."""
        return self.host.run(*self.ssh_command(*options, to=to), check=False)

    def session(
        self, *options: str, forward: int | None = None, local_port: int = 0, to: str = "true"
    ) -> ShellSession:
        """Speak the line protocol; `forward` is a port of the relay that leads to `local_port` here."""
        tunnel = ("-R", f"127.0.0.1:{forward}:127.0.0.1:{local_port}") if forward else ()
        return ShellSession(self.host, *self.ssh_command("-T", *tunnel, *options, to=to))


def inventory(file: Path) -> dict[str, Any]:
    """Return the scenario's inventory, as `ansible-inventory --list` has it."""
    command = ["ansible-inventory", "--inventory", str(file), "--list"]
    listed: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return listed


def all_registered(
    relay: ScenarioRelay, machines: list[Machine], *, within: float = STARTS_WITHIN
) -> dict[str, SeenRegistration]:
    """Wait until every service of the machines is registered; return the registrations."""

    def complete() -> dict[str, SeenRegistration]:
        found = relay.registrations()
        for machine in machines:
            names = [name for name, entry in found.items() if entry.client == machine.client]
            assert len(names) >= machine.lines, f"{machine.client} has {names}"
        return found

    return eventually(complete, "all instances are registered", within=within)


def back(relay: ScenarioRelay, machine: Machine, before: dict[str, SeenRegistration]) -> float:
    """Wait until all instances of the machine are registered anew, under their names; return for how many seconds."""
    began = time.monotonic()
    awaited = {name: old.connected_at for name, old in before.items() if old.client == machine.client}

    def registered_anew() -> bool:
        now = {name: entry.connected_at for name, entry in relay.registered(machine.client).items()}
        assert now.keys() == awaited.keys(), now
        assert all(now[name] != awaited[name] for name in awaited), now
        return True

    eventually(registered_anew, f"{machine.client} is back", within=BACK_WITHIN)
    return time.monotonic() - began


@dataclass(frozen=True)
class Played:
    """How a run of a playbook went. `said`: its whole output, with every run of blanks as one."""

    succeeded: bool
    said: str


def play(playbook: str, *arguments: str, inventory: Path | None = None, within: float = _PLAY_SECONDS) -> Played:
    """Run a playbook of the project, whatever comes of it, on the scenario's hosts or those of another inventory."""
    hosts = inventory or os.environ["MOLECULE_INVENTORY_FILE"]
    done = subprocess.run(
        ["ansible-playbook", "--inventory", hosts, playbook, *arguments],
        cwd=_PROJECT / "playbooks",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=within,
        check=False,
    )
    return Played(done.returncode == 0, " ".join(done.stdout.split()))


def hello(name: object, port: object, *, instance_id: str = "0" * 32, **fields: object) -> dict[str, Any]:
    """Return the message that registers; `fields` change the file."""
    file = {
        "name": name,
        "hostname": "guest.example",
        "port": port,
        "localPort": 4500,
        "cwd": "/home/guest",
        "connectedAt": "2026-11-24T16:00:00Z",
    }
    return {"type": "hello", "v": 1, "id": instance_id, "file": {**file, **fields}}
