"""The ends of the whole chain in a scenario with a gateway: a chat client out there, and a person's terminal."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.hosts.hosts import Host, RunningProgram
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.hosts.scenario import Machine, ScenarioRelay

CONTAINER = "opencode-gateway"
IMAGE = "opencode-relay/gateway:latest"
CONNECT = 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)'
"""A program that opens a connection to a port of loopback."""
_ROOT_CERTIFICATE = "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"
_HOME = "/root/phone"
_STARTS_WITHIN = 90.0
"""Seconds, on a machine that has other work."""
_ASK_MODEL = """
import sys, urllib.request
url, *posted = sys.argv[1:]
request = urllib.request.Request(url, data=b"" if posted else None)
print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20).read().decode())
"""


@dataclass(frozen=True)
class ScenarioGateway:
    """The relay's gateway, as the scenario's inventory has it."""

    relay: ScenarioRelay
    domain: str
    port: int
    data_dir: str

    @property
    def url(self) -> str:
        """What a person pastes into a chat service."""
        return f"https://{self.domain}/mcp"

    def administer(self, *arguments: str, stdin: str = "") -> str:
        """Run `opencode-gateway ARGUMENTS` as root; return what it says."""
        return self.relay.run("opencode-gateway", *arguments, stdin=stdin).stdout

    def root_certificate(self) -> str:
        """Return the certificate of Caddy's authority, in PEM."""
        return self.relay.output("cat", _ROOT_CERTIFICATE)

    def inspect(self) -> dict[str, Any]:
        """Return what the engine says of its container."""
        (found,) = json.loads(self.relay.output("docker", "inspect", CONTAINER))
        assert isinstance(found, dict)
        return found

    def wait_until_it_serves(self) -> None:
        """Wait until it and its children are well."""
        eventually(
            lambda: self.relay.run("opencode-gateway", "health", check=False).stdout.strip() == "ok",
            "the gateway is well",
            within=_STARTS_WITHIN,
        )


class Phone:
    """A chat client on some host. It reaches the relay by https alone, and keeps its tokens."""

    def __init__(self, host: Host, gateway: ScenarioGateway) -> None:
        self.host = host
        self.gateway = gateway
        self._env = {"PYTHONPATH": f"/opt/tests:{_HOME}/sdk", "PYTHONDONTWRITEBYTECODE": "1"}
        host.run("mkdir", "-p", f"{_HOME}/sdk")
        host.run("tee", f"{_HOME}/root.pem", stdin=gateway.root_certificate())
        # What the relay's own server has of the SDK, for the same Python.
        packages = ("sh", "-c", f"tar -C {gateway.relay.venv}/lib/python3*/site-packages -c .")
        with subprocess.Popen(gateway.relay.exec_command(*packages), stdout=subprocess.PIPE) as source:
            subprocess.run(
                host.exec_command("tar", "-C", f"{_HOME}/sdk", "-x"), stdin=source.stdout, check=True, timeout=120
            )
        assert source.returncode == 0

    def chat(self, *login: str) -> RunningProgram:
        """Start it; `login` is the name and password of a person who sits in front of it."""
        program = ("python3", "-m", "support.hosts.phone", self.gateway.url, f"{_HOME}/root.pem", _HOME)
        return RunningProgram(self.host, *program, *login, env=self._env)

    def call(self, tool: str, *login: str, **arguments: object) -> dict[str, Any]:
        """Start it for one call; return the answer."""
        with self.chat(*login) as chat:
            return ask(chat, tool, **arguments)

    def decide(self, link: str, decision: str, *login: str) -> dict[str, Any]:
        """Follow the link of a notice in a browser without scripts, log in and decide; see `visitor`."""
        program = ("python3", "-m", "support.hosts.visitor", f"{_HOME}/root.pem", *login, link, decision)
        done = self.host.run(*program, env=self._env)
        return dict(json.loads(done.stdout))

    def tokens(self) -> dict[str, Any]:
        """Return what it keeps."""
        kept = json.loads(self.host.output("cat", f"{_HOME}/tokens.json"))
        assert isinstance(kept, dict)
        return kept


def ask(chat: RunningProgram, tool: str, **arguments: object) -> dict[str, Any]:
    """Make a call in a chat that is open; return the answer."""
    heard = begin(chat, tool, **arguments)
    return answer(chat, after=heard)


def begin(chat: RunningProgram, tool: str, **arguments: object) -> int:
    """Make a call and do not wait for its answer; return how much was heard before."""
    heard = len(chat.lines)
    chat.write(json.dumps([tool, arguments]) + "\n")
    return heard


def answer(chat: RunningProgram, *, after: int) -> dict[str, Any]:
    """Wait for the answer to a call."""
    number = chat.wait_for(lambda line: line.startswith('{"answer"'), "an answer", after=after, within=_STARTS_WITHIN)
    answered = json.loads(chat.lines[number])["answer"]
    assert isinstance(answered, dict)
    assert not answered["is_error"], answered
    return answered


class Terminal:
    """OpenCode's full-screen interface in a terminal of a client host, started by the launcher."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    @property
    def screen(self) -> str:
        """What it shows now."""
        return self._tmux("capture-pane", "-p")

    def type(self, line: str) -> None:
        """Give OpenCode a line, as the person there does."""
        self._tmux("send-keys", "-l", line)
        eventually(lambda: line in self.screen, "what was typed", within=30)
        self._tmux("send-keys", "Enter")

    def _tmux(self, *arguments: str) -> str:
        env = {"LANG": "C.UTF-8"}
        return self.machine.host.output("tmux", "-u", "-L", "chain", *arguments, user=self.machine.person, env=env)

    @contextmanager
    def open(self, directory: str) -> Iterator[None]:
        """Start it in a directory, and wait for its prompt."""
        launcher = f"/home/{self.machine.person}/.local/bin/opencode-connected"
        self._tmux("new-session", "-d", "-x", "140", "-y", "50", "-c", directory, launcher)
        try:
            eventually(lambda: "Ask anything" in self.screen, "its prompt", within=_STARTS_WITHIN)
            yield
        finally:
            # Nothing is there any more if what ran in it ended.
            self.machine.host.run("tmux", "-L", "chain", "kill-server", user=self.machine.person, check=False)


class Model:
    """The scripted model of a client host."""

    def __init__(self, host: Host, port: int) -> None:
        self._host = host
        self._url = f"http://127.0.0.1:{port}"

    def times_prompted(self, text: str) -> int:
        """Return how many turns with this text in the prompt it was asked for."""
        done = self._host.python(_ASK_MODEL, f"{self._url}/prompts")
        assert done.returncode == 0, done.stderr
        return sum(text in prompt for prompt in json.loads(done.stdout))

    def release(self, gate: str) -> None:
        """Open a gate."""
        done = self._host.python(_ASK_MODEL, f"{self._url}/gates/{gate}", "post")
        assert done.returncode == 0, done.stderr


def other_image(archive: Path, label: str) -> None:
    """Save an image of the gateway that differs by a label alone."""
    program = f"FROM {IMAGE}\nLABEL opencode-relay.test={label}\n"
    name = "opencode-relay/gateway:other"
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", name, "-"],
        input=program.encode(),
        check=True,
        capture_output=True,
        timeout=120,
    )
    try:
        subprocess.run(["docker", "save", "--output", str(archive), name], check=True, timeout=120)
    finally:
        subprocess.run(["docker", "rmi", name], check=True, capture_output=True, timeout=120)
