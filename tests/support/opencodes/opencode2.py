"""Real OpenCode 2 for tests: installed if missing, as a plain `serve` and as a person has it, the managed service."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from typing import TYPE_CHECKING, Any, Self

import httpx
import psutil

from support.chat.plain_http import NO_TLS
from support.opencodes.opencode import OpenCodeHome, ServedOpenCode, find_on_machine, scripted_provider
from support.ports import free_port
from support.processes import end_all, has_ended, with_home
from support.project.npm import install_from_npm
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

OPENCODE2_VERSION = "2.0.15"
"""The version that is installed where there is none, and that the measured facts are about."""

_COMMAND_SECONDS = 90.0
"""A command of the service's takes 0.1 to 10 s on a machine that does nothing else."""


def find_opencode2() -> Path:
    """Return the OpenCode 2 to test with: `OPENCODE2_BIN`, else the one on PATH, else a fresh installation."""
    return find_on_machine("OPENCODE2_BIN", 2) or install_opencode2()


def install_opencode2() -> Path:
    """Install the pinned OpenCode 2 by npm below the repository's `.work`, once, and return its binary."""
    package = "@opencode/cli-linux-x64-baseline"
    return install_from_npm(package, OPENCODE2_VERSION, name="opencode2") / package / "bin" / "opencode"


def opencode2_config(model_url: str, *, asks: bool = True) -> dict[str, Any]:
    """Return a configuration with the scripted model at `model_url` as the only one.

    With `asks`, shell commands and edits need a permission, as a careful person has it. OpenCode 1 refuses it.
    """
    effect = "ask" if asks else "allow"
    rules = [{"action": action, "resource": "*", "effect": effect} for action in ("shell", "edit")]
    return {**scripted_provider(model_url), "permissions": rules}


class OpenCode2Home(OpenCodeHome):
    """A HOME whose configuration is of OpenCode 2's own format."""

    def _configuration(self, model_url: str, *, asks: bool) -> dict[str, Any]:
        return opencode2_config(model_url, asks=asks)


class ServedOpenCode2(ServedOpenCode):
    """An `opencode serve` of OpenCode 2; a context manager that leaves no process behind.

    Every route of the API asks for a password, one made up here if none is given. Never beside a service of the
    same home: what one of them runs is broken by the other.
    """

    _password_variable = "OPENCODE_PASSWORD"

    def __init__(
        self, home: OpenCodeHome, cwd: Path, *, password: str | None = None, port: int | None = None
    ) -> None:
        self.password = password or secrets.token_urlsafe()
        super().__init__(home, cwd, password=self.password, port=port)

    def _dispose(self) -> None:
        """Nothing: it ends turns and tools itself when it is told to end."""


class Service2:
    """The managed service of a home, on a free loopback port: one for all its directories, screens and commands.

    A context manager that leaves no process of this home behind: neither the service, nor the shells of tools that
    lost it, nor whatever else was started with the same HOME. With `started` false it only gives the service a port
    of its own, for tests in which something else starts it. `home` may be an `OpenCodeHome` of a person who has both
    generations; what runs is always what its `opencode` is at that moment.
    """

    def __init__(self, home: OpenCodeHome, *, started: bool = True) -> None:
        self.home = home
        self.port = free_port()
        self.registry = home.root / ".local" / "state" / "opencode" / "service.json"
        """Where the service says how it is reached: `{"id","version","url","pid","password"}`."""
        self.log = home.root / ".local" / "share" / "opencode" / "log" / "opencode.log"
        self._started = started

    def __enter__(self) -> Self:
        try:
            self.command("set", "port", str(self.port))
            if self._started:
                self.start()
        except BaseException:
            self.sweep()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self.sweep()

    def record(self) -> dict[str, Any]:
        """Read the registry file. It may name a service that was killed; where there is none, `FileNotFoundError`."""
        record: dict[str, Any] = json.loads(self.registry.read_text())
        return record

    @property
    def url(self) -> str:
        """Where it listens, as it says itself."""
        return str(self.record()["url"])

    @property
    def pid(self) -> int:
        """The process that serves, as it says itself."""
        return int(self.record()["pid"])

    @property
    def auth(self) -> httpx.BasicAuth:
        """What its API asks for. The password stays the same as long as the home."""
        return httpx.BasicAuth("opencode", self.record()["password"])

    def client(self, *, timeout: float = 30.0) -> httpx.Client:
        """Return an HTTP client for the service that runs now: `timeout` in seconds per read."""
        return httpx.Client(base_url=self.url, auth=self.auth, timeout=timeout, trust_env=False, verify=NO_TLS)

    def runs(self) -> bool:
        """Tell whether the service that the registry names answers, and is the one that it names."""
        try:
            with self.client() as client:
                told = client.get("/api/info")
            return told.status_code == httpx.codes.OK and told.json()["pid"] == self.pid
        except (OSError, ValueError, httpx.HTTPError):
            return False

    def start(self) -> None:
        """Start it if it does not run, and wait until it answers."""
        self.command("start")
        eventually(self.runs, "the service of OpenCode 2", within=_COMMAND_SECONDS)

    def stop(self) -> None:
        """End it as a person does: running turns and their tools first, then the service. No service is no error."""
        self.command("stop")

    def restart(self) -> None:
        """Replace it by a new process, which resumes the turns that ran; wait until that one answers."""
        self.command("restart")
        eventually(self.runs, "the restarted service of OpenCode 2", within=_COMMAND_SECONDS)

    def kill(self) -> None:
        """Kill it, as a crash would: its registry file and the shells of its tools stay."""
        process = psutil.Process(self.pid)
        process.send_signal(signal.SIGKILL)
        eventually(lambda: has_ended(process), "the end of the service", within=_COMMAND_SECONDS)

    def sweep(self) -> None:
        """End every process of this home, by its id, the shells of tools too."""
        while left := [process for process in with_home(self.home.root) if not has_ended(process)]:
            end_all(left)

    def command(self, *arguments: str) -> str:
        """Run `opencode service` with these arguments to its end, and return what it said."""
        said = self.home.root / "service-command.log"
        # A file, not a pipe: a service that it starts may keep what it was given, and a pipe would then never end.
        with said.open("wb") as output:
            done = subprocess.run(
                [str(self.home.binary), "service", *arguments],
                cwd=self.home.root,
                env=self.home.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        text = said.read_text(errors="replace")
        if done.returncode:
            log = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
            what = f"opencode service {' '.join(arguments)}"
            raise RuntimeError(f"{what} ended with {done.returncode}: {text[-2000:]}\n{log}")
        return text
