"""Real OpenCode for tests: installed if missing, with a HOME of its own and the scripted model behind it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from support.ports import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

OPENCODE_VERSION = "1.18.33"
"""The version that is installed where there is none, and that the measured facts are about."""

MODEL_NAME = "fake/fake"
"""Provider and model of the scripted model in OpenCode's configuration."""

_INSTALL_DIRECTORY = Path(__file__).parents[2] / ".work" / "opencode"
_START_SECONDS = 60.0
"""Serve takes 3 to 4 s alone, much longer when the whole suite shares two cores."""
_STOP_SECONDS = 10.0


def find_opencode() -> Path:
    """Return the OpenCode to test with: `OPENCODE_BIN`, else the one on PATH, else a fresh installation."""
    if named := os.environ.get("OPENCODE_BIN"):
        return Path(named)
    if found := shutil.which("opencode"):
        return Path(found)
    return install_opencode()


def install_opencode() -> Path:
    """Install the pinned OpenCode by npm below the repository's `.work`, once, and return its binary."""
    _INSTALL_DIRECTORY.mkdir(parents=True, exist_ok=True)
    binary = _INSTALL_DIRECTORY / "node_modules" / ".bin" / "opencode"
    stamp = _INSTALL_DIRECTORY / f"installed-{OPENCODE_VERSION}"
    with (_INSTALL_DIRECTORY / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            package = f"opencode-ai@{OPENCODE_VERSION}"
            command = [
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                "--prefix",
                str(_INSTALL_DIRECTORY),
                package,
            ]
            subprocess.run(command, check=True)
            stamp.touch()
    return binary


def opencode_config(model_url: str, *, asks: bool = True) -> dict[str, Any]:
    """Return a configuration with the scripted model at `model_url` as the only one.

    With `asks`, shell commands and edits need a permission, as a careful person has it.
    """
    action = "ask" if asks else "allow"
    limit = {"context": 200_000, "output": 8_000}
    return {
        "model": MODEL_NAME,
        "small_model": MODEL_NAME,
        "autoupdate": False,
        "share": "disabled",
        "permission": {"bash": action, "edit": action},
        "provider": {
            "fake": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Fake",
                "options": {"baseURL": model_url, "apiKey": "x"},
                "models": {"fake": {"name": "fake", "tool_call": True, "limit": limit}},
            }
        },
    }


class OpenCodeHome:
    """A HOME with XDG directories and OpenCode's configuration: one user's OpenCode and its database.

    `root` is made if it is missing; all instances with one home share their sessions, as in real life.
    """

    def __init__(self, root: Path, model_url: str, *, binary: Path, asks: bool = True) -> None:
        self.root = root
        self.binary = binary.absolute()
        # Under its usual name, and nothing else of the directory that it lies in, goes on the PATH.
        commands = root / "bin"
        commands.mkdir(parents=True, exist_ok=True)
        command = commands / "opencode"
        command.unlink(missing_ok=True)
        command.symlink_to(self.binary)
        configuration = root / ".config" / "opencode"
        configuration.mkdir(parents=True, exist_ok=True)
        (configuration / "opencode.json").write_text(json.dumps(opencode_config(model_url, asks=asks)))

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment of a process that belongs to this home.

        Little is passed on from the test's own environment, so that nobody's keys or settings leak in.
        """
        passed_on = {name: os.environ[name] for name in ("LANG", "TERM", "TMPDIR") if name in os.environ}
        return {
            **passed_on,
            "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.root),
            "XDG_CONFIG_HOME": str(self.root / ".config"),
            "XDG_DATA_HOME": str(self.root / ".local" / "share"),
            "XDG_STATE_HOME": str(self.root / ".local" / "state"),
            "XDG_CACHE_HOME": str(self.root / ".cache"),
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            **(extra or {}),
        }


class ServedOpenCode:
    """An `opencode serve` on a free loopback port; a context manager that leaves no process behind.

    `cwd` is the directory it works in (made if missing). With `password`, every route asks for it.
    """

    def __init__(
        self, home: OpenCodeHome, cwd: Path, *, password: str | None = None, port: int | None = None
    ) -> None:
        self.home = home
        self.cwd = cwd
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.auth = httpx.BasicAuth("opencode", password) if password else None
        self.log = home.root / f"serve-{self.port}.log"
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._process is not None, "not started"
        return self._process.pid

    def client(self, *, timeout: float = 30.0) -> httpx.Client:
        """Return an HTTP client for it: `timeout` in seconds per read."""
        return httpx.Client(base_url=self.url, auth=self.auth, timeout=timeout, trust_env=False)

    def start(self) -> None:
        """Start it, and wait until it is healthy and has its port for itself."""
        self.cwd.mkdir(parents=True, exist_ok=True)
        extra = {"OPENCODE_SERVER_PASSWORD": self._password} if self._password else {}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self.home.binary), "serve", "--hostname", "127.0.0.1", "--port", str(self.port)],
                cwd=self.cwd,
                env=self.home.environment(extra),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            eventually(self._serves, f"OpenCode on port {self.port}", within=_START_SECONDS)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it as one should: running turns and their tools first, then the process."""
        if self._process is None:
            return
        with suppress(httpx.HTTPError), self.client(timeout=_STOP_SECONDS) as client:
            client.post("/global/dispose")
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill it and whatever its session of processes still runs, as a crash would."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _serves(self) -> bool:
        """Tell whether it listens.

        Another process might answer on the port, so what counts is that this one said it listens there.
        """
        assert self._process is not None
        said = self.log.read_text(errors="replace")
        if self._process.poll() is not None:
            message = f"opencode serve ended with {self._process.returncode}: {said[-2000:]}"
            raise RuntimeError(message)
        return f"listening on {self.url}" in said
