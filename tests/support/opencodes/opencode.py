"""Real OpenCode 1 for tests: installed if missing, with a HOME of its own and the scripted model behind it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from support.chat.plain_http import NO_TLS
from support.ports import free_port
from support.processes import descendants, end_all
from support.project.npm import install_from_npm
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

OPENCODE_VERSION = "1.18.33"
"""The version that is installed where there is none, and that the measured facts are about."""

MODEL_NAME = "fake/fake"
"""Provider and model of the scripted model in OpenCode's configuration."""

_START_SECONDS = 90.0
"""Serve takes 3 to 4 s alone, much longer when the whole suite shares two cores."""
_STOP_SECONDS = 10.0


def find_opencode() -> Path:
    """Return the OpenCode 1 to test with: `OPENCODE_BIN`, else the one on PATH, else a fresh installation."""
    return find_on_machine("OPENCODE_BIN", 1) or install_opencode()


def find_on_machine(variable: str, generation: int) -> Path | None:
    """Return the binary that the environment names in `variable`, else PATH's if it is of that generation."""
    if named := os.environ.get(variable):
        return Path(named)
    found = shutil.which("opencode")
    if found and version_of(Path(found)).startswith(f"{generation}."):
        return Path(found)
    return None


def version_of(binary: Path) -> str:
    """Return the version that an OpenCode of either generation says it is, like 1.18.33 or 2.0.15."""
    command = [str(binary), "--version"]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return said.stdout.split()[-1].removeprefix("v")


def install_opencode() -> Path:
    """Install the pinned OpenCode by npm below the repository's `.work`, once, and return its binary."""
    return install_from_npm("opencode-ai", OPENCODE_VERSION, name="opencode") / ".bin" / "opencode"


def opencode_config(model_url: str, *, asks: bool = True) -> dict[str, Any]:
    """Return a configuration with the scripted model at `model_url` as the only one.

    With `asks`, shell commands and edits need a permission, as a careful person has it.
    """
    action = "ask" if asks else "allow"
    return {**scripted_provider(model_url), "permission": {"bash": action, "edit": action}}


def scripted_provider(model_url: str) -> dict[str, Any]:
    """Return the part of a configuration that both generations share: all but what needs a permission."""
    limit = {"context": 200_000, "output": 8_000}
    takes = {"attachment": True, "modalities": {"input": ["text", "image", "pdf"], "output": ["text"]}}
    return {
        "model": MODEL_NAME,
        "small_model": MODEL_NAME,
        "autoupdate": False,
        "share": "disabled",
        "provider": {
            "fake": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Fake",
                "options": {"baseURL": model_url, "apiKey": "x"},
                "models": {"fake": {"name": "fake", "tool_call": True, "limit": limit, **takes}},
            }
        },
    }


class OpenCodeHome:
    """A HOME with XDG directories and OpenCode's configuration: one user's OpenCode and its database.

    `root` is made if it is missing; all instances with one home share their sessions, as in real life. Its
    configuration is of the format of OpenCode 1, which OpenCode 2 takes too: the home of a person who has both.
    """

    def __init__(self, root: Path, model_url: str, *, binary: Path, asks: bool = True) -> None:
        self.root = root
        self.binary = binary
        self.install(binary)
        configuration = root / ".config" / "opencode"
        configuration.mkdir(parents=True, exist_ok=True)
        (configuration / "opencode.json").write_text(json.dumps(self._configuration(model_url, asks=asks)))
        _has_its_plugin_package(configuration)

    def install(self, binary: Path) -> None:
        """Make `binary` this home's `opencode`: at first, and in place of another as an upgrade does."""
        self.binary = binary.absolute()
        # Under its usual name, and nothing else of the directory that it lies in, goes on the PATH.
        commands = self.root / "bin"
        commands.mkdir(parents=True, exist_ok=True)
        command = commands / "opencode"
        command.unlink(missing_ok=True)
        command.symlink_to(self.binary)

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

    def _configuration(self, model_url: str, *, asks: bool) -> dict[str, Any]:
        return opencode_config(model_url, asks=asks)


def _has_its_plugin_package(configuration: Path) -> None:
    """Make OpenCode 1 believe that it installed what plugins are written with; no test has a plugin that needs it.

    It installs that in the background of every new home, which takes an eighth of a processor for a minute.
    """
    wanted = {"dependencies": {"@opencode-ai/plugin": OPENCODE_VERSION}}
    (configuration / "node_modules").mkdir(exist_ok=True)
    (configuration / "package.json").write_text(json.dumps(wanted))
    (configuration / "package-lock.json").write_text(json.dumps({"lockfileVersion": 3, "packages": {"": wanted}}))


class ServedOpenCode:
    """An `opencode serve` on a free loopback port; a context manager that leaves no process behind.

    `cwd` is the directory it works in (made if missing). With `password`, every route asks for it.
    """

    _password_variable = "OPENCODE_SERVER_PASSWORD"

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
        return httpx.Client(base_url=self.url, auth=self.auth, timeout=timeout, trust_env=False, verify=NO_TLS)

    def start(self) -> None:
        """Start it, and wait until it is healthy and has its port for itself."""
        self.cwd.mkdir(parents=True, exist_ok=True)
        extra = {self._password_variable: self._password} if self._password else {}
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
        self._dispose()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill it and whatever it still runs, as a crash would."""
        if self._process is None:
            return
        # OpenCode 2 gives each of its commands a session of its own.
        below = descendants(self._process.pid)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        end_all(below)
        self._process = None

    def _dispose(self) -> None:
        """End running turns and their tools, which OpenCode 1 would leave behind."""
        with suppress(httpx.HTTPError), self.client(timeout=_STOP_SECONDS) as client:
            client.post("/global/dispose")

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
