"""A relay as the roles provision it, without a service manager: users, files, sshd and agent. Needs root."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shlex
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil
import yaml

from relay.installation import Installation
from support.line.sshd import Sshd, unix_user
from support.ports import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

BLOCK = 4
_SSHD_ROLE = Path(__file__).parents[2] / "roles" / "relay_sshd"


def free_range(size: int) -> range:
    """Return `size` free ports in a row."""
    while True:
        first = free_port()
        ports = range(first, first + size)
        with ExitStack() as stack:
            try:
                for port in ports:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return ports


def sshd_options(user: str, *, per_source: int = 200, **changes: str) -> tuple[str, ...]:
    """Return the lines of sshd_config that the role sets, for this tunnel user, with `changes` in what is its own.

    `per_source`: handshakes at once from one address.
    """
    tunnel = yaml.safe_load((_SSHD_ROLE / "vars" / "main.yml").read_text())["__relay_sshd_tunnel"] | changes
    return (
        # As on a host that has the memory for it.
        "MaxStartups 300:30:600",
        f"PerSourceMaxStartups {per_source}",
        f"Match User {user}",
        *(f"{keyword} {value}" for keyword, value in tunnel.items()),
        "Match all",
    )


class ProvisionedRelay:
    """One relay.

        with ProvisionedRelay(tmp_path) as relay:
            relay.enrol("laptop", "desktop")
            subprocess.run([*shlex.split(relay.ssh_command("laptop")), "-R", …])

    `sshd`: settings other than the role's. `clients`: room for so many. `ports` and `block`: the range and what each
    client gets of it. `address` is where sshd listens, in the network namespace that `inside` is the prefix of.
    """

    def __init__(
        self,
        directory: Path,
        *,
        sshd: dict[str, str] | None = None,
        clients: int = 8,
        ports: range | None = None,
        block: int = BLOCK,
        address: str = "127.0.0.1",
        inside: tuple[str, ...] = (),
        name: str | None = None,
        per_source: int = 200,
    ) -> None:
        self.directory = directory
        self._per_source = per_source
        self.ports = ports or free_range(block * clients)
        self.log = directory / "agent.log"
        self._sshd_settings = sshd or {}
        self._block = block
        self._address = address
        self._inside = inside
        self._name = name
        self._stack = ExitStack()
        self._agent: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._installation = stack.enter_context(Installation())
            self.etc = self._installation.root / "etc"
            self.registry = self._installation.root / "registry"
            self.socket_path = self._installation.root / "agent.sock"
            self.tunnel_user = stack.enter_context(unix_user("sh"))
            self.agent_user = stack.enter_context(unix_user("false"))
            self.gateway_user = stack.enter_context(unix_user("false"))
            self.tunnel_uid = pwd.getpwnam(self.tunnel_user).pw_uid
            self._make_files()
            self._listener = stack.enter_context(self._listen())
            self._notices = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            self._notices.bind(str(self._installation.root / "notify.sock"))
            (self._installation.root / "notify.sock").chmod(0o666)
            stack.callback(self.stop_agent)
            self.start_agent()
            self.sshd = stack.enter_context(
                Sshd(
                    self.directory / "sshd",
                    user=self.tunnel_user,
                    options=sshd_options(
                        self.tunnel_user,
                        per_source=self._per_source,
                        AuthorizedKeysFile=str(self.etc / "authorized_keys"),
                        **self._sshd_settings,
                    ),
                    address=self._address,
                    inside=self._inside,
                    name=self._name,
                )
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _make_files(self) -> None:
        self.etc.mkdir()
        self.write_settings()
        self.registry.mkdir()
        os.chown(self.registry, pwd.getpwnam(self.agent_user).pw_uid, pwd.getpwnam(self.gateway_user).pw_gid)
        self.registry.chmod(0o2750)

    def write_settings(self, **changes: object) -> None:
        settings = {
            "portRange": f"{self.ports.start}-{self.ports.stop - 1}",
            "blockSize": self._block,
            "registryDir": str(self.registry),
            "tunnelUser": self.tunnel_user,
            "agentUser": self.agent_user,
            "socket": str(self.socket_path),
        }
        (self.etc / "relay.json").write_text(json.dumps({**settings, **changes}))

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.socket_path))
        os.chown(self.socket_path, 0, pwd.getpwnam(self.tunnel_user).pw_gid)
        self.socket_path.chmod(0o660)
        listener.listen(4096)
        return listener

    # ---- the agent

    def start_agent(self) -> None:
        """Start it as its service does; returns when it says that it is ready."""
        setpriv = [
            "setpriv",
            *("--reuid", self.agent_user),
            *("--regid", self.agent_user),
            "--init-groups",
            *("--inh-caps", "+kill"),
            *("--ambient-caps", "+kill"),
            *("--bounding-set", "-all,+kill"),
        ]
        with self.log.open("ab") as log:
            self._agent = subprocess.Popen(
                # The listener comes as standard input: which descriptor it gets elsewhere is not ours to say.
                [
                    *self._inside,
                    *setpriv,
                    "sh",
                    "-c",
                    'LISTEN_PID=$$ exec "$@" 3<&0 </dev/null',
                    "sh",
                    *self.command("agent"),
                ],
                stdin=self._listener.fileno(),
                stdout=log,
                stderr=log,
                cwd="/",
                env={
                    "PATH": os.environ["PATH"],
                    "LISTEN_FDS": "1",
                    "NOTIFY_SOCKET": str(self._installation.root / "notify.sock"),
                },
            )
        self._notices.settimeout(60)
        while self._notices.recv(100) != b"READY=1":
            pass

    @property
    def agent(self) -> subprocess.Popen[bytes]:
        """The agent's process."""
        assert self._agent is not None
        return self._agent

    def stop_agent(self) -> None:
        """End it as systemctl stop does."""
        if self._agent is not None:
            self._agent.terminate()
            self._agent.wait()
            self._agent = None

    def kill_agent(self) -> None:
        """End it as kill -9 does."""
        self.agent.kill()
        self.agent.wait()
        self._agent = None

    def logged(self, text: str) -> bool:
        """Tell whether the agent's log has this text."""
        return text in self.log.read_text()

    def until_logged(self, text: str) -> None:
        """Wait until the agent's log has this text: what a client sees may come first."""
        eventually(lambda: self.logged(text), f"the agent logs: {text}")

    # ---- its clients

    def command(self, *arguments: str) -> list[str]:
        """Return the command `opencode-relay` of this relay."""
        return [str(self._installation.python), "-m", "opencode_relay.cli", "--etc", str(self.etc), *arguments]

    def run(self, *arguments: str, stdin: str = "", user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run `opencode-relay` as `user`; nothing is made of its exit status."""
        command = ["runuser", "-u", user, "--", *self.command(*arguments)]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, cwd="/", check=False)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be a command that is changing the clients, for as long as the context lasts."""
        descriptor = os.open(self.etc, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def apply(self, clients: dict[str, str], *options: str) -> dict[str, Any]:
        """Enrol exactly these, by name and public key; return what it says."""
        wanted = {"clients": [{"name": name, "key": key} for name, key in clients.items()]}
        ran = self.run("apply", "--json", *options, stdin=json.dumps(wanted))
        assert ran.returncode == 0, ran.stderr
        outcome: dict[str, Any] = json.loads(ran.stdout)
        return outcome

    def enrol(self, *names: str) -> dict[str, Any]:
        """Enrol exactly these clients, each with the key that `key` makes for it."""
        return self.apply({name: self.public_key(name) for name in names})

    def key(self, name: str) -> Path:
        """Return the private key of a client; made if there is none."""
        path = self.directory / f"key-{name}"
        if not path.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
            subprocess.run(command, check=True)
        return path

    def public_key(self, name: str) -> str:
        return self.key(name).with_suffix(".pub").read_text().strip()

    def ports_of(self, name: str) -> range:
        """Return a client's block."""
        state = json.loads((self.etc / "clients.json").read_text())
        client = next(client for client in state["clients"] if client["name"] == name)
        return range(client["first"], client["last"] + 1)

    def ssh_command(self, name: str) -> str:
        """What RELAY_SSH_CMD is on that client."""
        words = shlex.split(self.sshd.ssh_command)
        words[words.index("-i") + 1] = str(self.key(name))
        return shlex.join(words)

    def session_commands(self) -> str:
        """Return what runs as the tunnel user, as its arguments say."""
        words: list[str] = []
        for process in psutil.process_iter(["uids", "cmdline"]):
            if process.info["uids"] and process.info["uids"].real == self.tunnel_uid:
                words += process.info["cmdline"] or []
        return " ".join(words)

    def registrations(self) -> dict[str, dict[str, Any]]:
        """Return what a reader of the directory sees."""
        found = {}
        for path in self.registry.glob("[!.]*.json"):
            try:
                found[path.stem] = json.loads(path.read_text())
            except FileNotFoundError:  # gone meanwhile
                continue
        return found

    def until_registered(self, *names: str) -> None:
        """Wait until exactly these names are registered."""
        eventually(lambda: sorted(self.registrations()) == sorted(names), f"registered are {names}")
