"""The real launcher with the real OpenCode on a pseudo-terminal, as a person has it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pexpect
import psutil

from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from support.opencodes.opencode import OpenCodeHome

LAUNCHER = str(Path(sys.executable).parent / "opencode-connected")

_START_SECONDS = 90.0


@dataclass(frozen=True)
class Machine:
    """One user's machine: an OpenCode home that tests share, and directories that no other test sees."""

    home: OpenCodeHome
    registry_dir: Path
    project: Path
    state_home: Path
    config_home: Path

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment that a person's shell would have there."""
        own = {
            "RELAY_REGISTRY_DIR": str(self.registry_dir),
            "XDG_STATE_HOME": str(self.state_home),
            "XDG_CONFIG_HOME": str(self.config_home),
            "OPENCODE_CONFIG": str(self.home.root / ".config" / "opencode" / "opencode.json"),
            "TERM": "xterm-256color",
        }
        return self.home.environment({**own, **(extra or {})})

    @property
    def state_dir(self) -> Path:
        """The launcher's state directory."""
        return self.state_home / "opencode-relay"

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `opencode-connected ARGUMENTS` without a terminal to its end."""
        return subprocess.run(
            [LAUNCHER, *arguments],
            env=self.environment(env),
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )

    def states(self) -> list[dict[str, Any]]:
        """Return the state files' contents."""
        return list(_contents(self.state_dir, "instances/*.json").values())

    def registrations(self) -> dict[str, dict[str, Any]]:
        """Return the registrations by name."""
        return _contents(self.registry_dir, "*.json")


def _contents(directory: Path, pattern: str) -> dict[str, dict[str, Any]]:
    """Return what the files hold, by their names without the suffix. One that goes meanwhile is not there."""
    found = {}
    for path in directory.glob(pattern):
        with suppress(FileNotFoundError):
            found[path.stem] = json.loads(path.read_text())
    return found


def _heed_signals() -> None:
    """Have the child heed what a terminal's programs heed, even if the tests run in the background or under nohup."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Launched:
    """`opencode-connected ARGUMENTS` on a terminal of its own, a context manager that leaves nothing behind.

    With `program` something else (a shell) runs there instead.
    """

    def __init__(
        self,
        machine: Machine,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        program: Sequence[str] = (LAUNCHER,),
    ) -> None:
        self.machine = machine
        command = [*program, *arguments]
        self.terminal = pexpect.spawn(
            command[0],
            command[1:],
            env=machine.environment(env),
            cwd=str(cwd or machine.project),
            dimensions=(40, 120),
            timeout=_START_SECONDS,
            preexec_fn=_heed_signals,
        )
        self._screen = bytearray()
        self._stop_reading = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = self.family()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.ended()
        # The terminal's own child was reaped just now, and pexpect wants to be the one who does it.
        psutil.wait_procs([process for process in family if process.pid != self.terminal.pid], timeout=10)
        self._stop_reading.set()
        self._reader.join()
        self.terminal.close(force=True)

    @property
    def screen(self) -> str:
        """All that was written to the terminal so far."""
        return self._screen.decode(errors="replace")

    def family(self) -> list[psutil.Process]:
        """Return what was started and all its descendants that are alive."""
        try:
            root = psutil.Process(self.terminal.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def launcher(self) -> psutil.Process:
        """Return the launcher's process."""
        return psutil.Process(self.state()["launcher_pid"])

    def opencode(self) -> psutil.Process:
        """Return OpenCode's process."""
        return psutil.Process(self.state()["opencode_pid"])

    def guardian(self) -> psutil.Process:
        """Return the guardian's process."""
        return self.guardians()[0]

    def guardians(self) -> list[psutil.Process]:
        """Return the guardian's process, and of a headless launcher the second one's, which starts before it."""
        found = [p for p in self.launcher().children() if "guardian.py" in " ".join(p.cmdline())]
        return sorted(found, key=lambda p: (p.create_time(), p.pid), reverse=True)

    def state(self) -> dict[str, Any]:
        """Return the launcher's state file, once it says which process OpenCode is."""
        pids = {process.pid for process in self.family()}

        def mine() -> dict[str, Any] | None:
            if not self.terminal.isalive():
                raise RuntimeError(f"ended: {self.screen}")
            pids.update(process.pid for process in self.family())
            states = (s for s in self.machine.states() if s["launcher_pid"] in pids and s["opencode_pid"])
            return next(states, None)

        found = eventually(mine, "a state file", within=_START_SECONDS)
        assert found is not None
        return found

    def registered(self) -> dict[str, Any]:
        """Wait for the registration and return the state file then."""

        def named() -> dict[str, Any] | None:
            state = self.state()
            return state if state["name"] else None

        found = eventually(named, "the registration", within=_START_SECONDS)
        assert found is not None
        return found

    def send(self, text: str) -> None:
        """Type."""
        os.write(self.terminal.child_fd, text.encode())

    def hang_up(self) -> None:
        """Close the terminal, as its window's close button does."""
        self._stop_reading.set()
        self._reader.join()
        self.terminal.ptyproc.fileobj.close()  # type: ignore[attr-defined] # the stubs leave it out

    def ended(self) -> int:
        """Wait for the end; return the exit code, or minus the signal's number."""

        def is_over() -> bool:
            return not self.terminal.isalive()

        eventually(is_over, "the end", within=_START_SECONDS)
        if self.terminal.signalstatus is not None:
            return -signal.Signals(self.terminal.signalstatus)
        assert self.terminal.exitstatus is not None
        return int(self.terminal.exitstatus)

    def _read(self) -> None:
        with suppress(OSError):  # the other end is closed
            while not self._stop_reading.is_set():
                if select.select([self.terminal.child_fd], [], [], 0.05)[0]:
                    self._screen += os.read(self.terminal.child_fd, 65536)
