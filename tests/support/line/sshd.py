"""A throw-away relay: a real sshd with keys of its own, on a free loopback port or inside a network namespace."""

from __future__ import annotations

import getpass
import os
import secrets
import shlex
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from support.ports import free_port
from support.processes import name_of
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


@contextmanager
def unix_user(shell: str, comment: str = "") -> Iterator[str]:
    """Make a user with this login shell and a home, for as long as the context lasts. Needs root. Yields the name."""
    name = f"oc{secrets.token_hex(5)}"
    where = shutil.which(shell)
    if where is None:
        raise RuntimeError(f"{shell} must be installed for this test")
    # "*": no password fits, but unlike "!" the account is not locked, which sshd would refuse.
    options = ("--create-home", "--shell", where, "--password", "*", "--comment", comment)
    subprocess.run(["useradd", *options, name], check=True)
    try:
        yield name
    finally:
        # What this user's programs leave behind for a moment must not keep the account.
        for process in psutil.process_iter(["username"]):
            if process.info["username"] == name:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        subprocess.run(["userdel", "--remove", "--force", name], check=True, stderr=subprocess.DEVNULL)


class Sshd:
    """A relay of one's own.

        with Sshd(tmp_path) as relay:
            subprocess.run([*shlex.split(relay.ssh_command), "true"])

    `directory` takes keys, configuration and log. `user` is who logs in; another than oneself needs root. `options`
    are further lines of sshd_config. `address` is where it listens, in the namespace that `inside` is the prefix of.
    `name` is what clients call it there.
    """

    def __init__(
        self,
        directory: Path,
        *,
        user: str | None = None,
        options: tuple[str, ...] = (),
        address: str = "127.0.0.1",
        inside: tuple[str, ...] = (),
        name: str | None = None,
    ) -> None:
        self.directory = directory
        self.user = user or getpass.getuser()
        self.options = options
        self.address = address
        self.inside = inside
        self.name = name or address
        self.port = free_port()
        self.log = directory / "sshd.log"
        self.client_key = directory / "client_key"
        self.known_hosts = directory / "known_hosts"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def ssh_command(self) -> str:
        """What RELAY_SSH_CMD would be: independent of the HOME of whoever runs it."""
        return shlex.join(
            [
                "ssh",
                *("-F", "none"),
                *("-i", str(self.client_key)),
                *("-o", "IdentitiesOnly=yes"),
                *("-o", "IdentityAgent=none"),
                *("-o", "StrictHostKeyChecking=yes"),
                *("-o", f'UserKnownHostsFile="{self.known_hosts}"'),
                *("-o", "GlobalKnownHostsFile=none"),
                *("-p", str(self.port)),
                f"{self.user}@{self.name}",
            ]
        )

    @property
    def pid(self) -> int:
        """The process that listens."""
        assert self._process is not None, "not started"
        return self._process.pid

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        for key in (self.client_key, self.directory / "host_key"):
            if not key.exists():
                command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)]
                subprocess.run(command, check=True)
        host_key = (self.directory / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[{self.name}]:{self.port} {host_key}")
        # As root, sshd reads the file as the user who logs in, who cannot look into root's directories.
        authorized = Path("/run") / f"authorized-{self.port}" if os.geteuid() == 0 else self.directory / "authorized"
        shutil.copy(f"{self.client_key}.pub", authorized)
        authorized.chmod(0o644)
        self.authorized_keys = authorized
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.authorized_keys.unlink(missing_ok=True)

    @staticmethod
    @cache
    def _penalties() -> tuple[str, ...]:
        """From OpenSSH 9.8 on it locks an address out that failed to log in, as tests do on purpose."""
        command = [_SSHD, "-t", "-f", "/dev/null", "-o", "PerSourcePenalties=no"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        return () if "Bad configuration option" in said else ("PerSourcePenalties no",)

    def start(self) -> None:
        """Listen; returns when a client would be greeted."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.directory / "sshd_config"
        config.write_text(
            "\n".join(
                [
                    "MaxStartups 200",  # of this the last word counts, and of all else the first
                    *self.options,
                    *self._penalties(),
                    f"Port {self.port}",
                    f"ListenAddress {self.address}",
                    f'HostKey "{self.directory / "host_key"}"',
                    f'AuthorizedKeysFile "{self.authorized_keys}"',
                    "StrictModes no",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "PermitRootLogin yes",
                    "PidFile none",
                    "LogLevel VERBOSE",
                ]
            )
            + "\n"
        )
        began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.inside, _SSHD, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def listens() -> bool:
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"sshd ended: {self.log.read_text()}")
            return b"Server listening on" in self.log.read_bytes()[began:]

        eventually(listens, "sshd listens")

    def sessions(self) -> list[psutil.Process]:
        """The processes of the connections that are open now, relay programs included."""
        if self._process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def kill_sessions(self) -> None:
        """Kill every sshd process that holds a connection; the relay programs see it as the end of their input."""
        for process in self.sessions():
            with suppress(psutil.NoSuchProcess):
                if name_of(process).startswith("sshd"):
                    process.kill()

    def stop(self) -> None:
        """Stop listening and end every connection, as a reboot does."""
        if self._process is None:
            return
        # Frozen first, so that it starts no session that escapes the list.
        with suppress(psutil.NoSuchProcess):
            psutil.Process(self._process.pid).suspend()
        sessions = self.sessions()
        self.kill_sessions()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None
        # The sessions' programs end by themselves, and may have something to clear away before. A sleep has not.
        programs = [process for process in sessions if name_of(process) != "sleep"]
        _, stubborn = psutil.wait_procs(programs, timeout=10)
        for process in stubborn:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def restart(self) -> None:
        """Stop, and listen again on the same port."""
        self.stop()
        self.start()
