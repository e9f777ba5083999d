"""What keeps programs running for a person, as the launcher's service needs it: systemd and launchd alike.

    Manager
    ├── Systemd   a unit of the person's own manager
    └── Launchd   an agent of the person's session

A manager knows one service by its name, and reads it from one file. Others may have made a service of that name:
it is theirs, and neither changed nor removed.
"""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from opencode_connected.errors import LauncherError
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

State = Literal["active", "restarting", "stopped", "absent"]
"""`restarting`: it ended by itself and is started again in some seconds. `absent`: it is not installed."""

RESTART_SECONDS = 10
"""Between an end and the next start."""
STOP_SECONDS = 30
"""The launcher says goodbye to the relay within a few; what takes longer is killed."""
_COMMAND_SECONDS = 2.0 * STOP_SECONDS
"""A restart waits for the stop."""
_MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Job:
    """What is to be kept running."""

    program: Path
    """The launcher, by a path that stays when it is upgraded."""
    settings_file: Path
    """Its environment, as `environment.written` has it."""
    home: Path
    """Where it runs."""


@dataclass(frozen=True)
class SeenService:
    """How the service is."""

    state: State
    pid: int | None = None
    """The launcher's process, where it is `active`."""
    starts_by_itself: bool = False
    """At boot or login."""
    reason: str = ""
    """Why it does not run, as far as the manager tells."""


class Manager(ABC):
    """Where the service is known. Its methods raise `LauncherError` where it cannot be asked or refuses."""

    name: Literal["systemd", "launchd"]
    file: Path
    """Where the service is described."""
    log: str
    """How a person reads what the service wrote."""

    @abstractmethod
    def description(self, job: Job) -> str:
        """Return what `file` is to hold."""

    @abstractmethod
    def is_own(self, content: str) -> bool:
        """Tell whether `content` of `file` is a description of ours, of whatever release."""

    @abstractmethod
    def look(self) -> SeenService:
        """Look at the service that `file` describes, or is to. Refuses if another file describes one of its name."""

    @abstractmethod
    def keep_running(self, *, anew: bool) -> None:
        """Read `file`, and have the service run now and from the next boot or login on. `anew`: end it first."""

    @abstractmethod
    def end(self) -> None:
        """End the service, and have it started no more. Nothing happens if it does not run."""

    @abstractmethod
    def runs_from_boot(self) -> bool:
        """Tell whether it runs without anybody logged in."""

    @abstractmethod
    def run_from_boot(self) -> bool:
        """Have it run without anybody logged in; tell whether that is so now. Refused without the rights to it."""

    @property
    @abstractmethod
    def boot_hint(self) -> str:
        """How a person has it run from boot on, where `run_from_boot` has not the rights to."""


def own_description(manager: Manager) -> str | None:
    """Return what the manager's file holds; None if there is none.

    Raises:
        LauncherError: it is not one of ours, or cannot be read.

    """
    path = manager.file
    try:
        if path.is_symlink():  # a unit that is masked, or that somebody keeps elsewhere
            raise _not_own(path)
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _not_own(path) from error
    except OSError as error:
        raise LauncherError(f"cannot read {path}: {error.strerror}") from error
    if not manager.is_own(content):
        raise _not_own(path)
    return content


def run(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a manager's command to its end, whatever comes of it; what it says is printable, line by line.

    Raises:
        LauncherError: it is not there, or does not end.

    """
    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except OSError as error:
        raise LauncherError(f"{command[0]} cannot be executed: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise LauncherError(f"`{' '.join(command)}` has not ended after {_COMMAND_SECONDS:.0f} s") from error
    return done


def must(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a manager's command, and return what it printed.

    Raises:
        LauncherError: it failed; the line has its own words.

    """
    done = run(command, environment)
    if done.returncode != 0:
        said = printable(done.stderr) or f"exit code {done.returncode}"
        raise LauncherError(f"`{' '.join(command)}` failed: {said}")
    return done.stdout


def _not_own(path: Path) -> LauncherError:
    return LauncherError(
        f"{path} is not what `opencode-connected service install` writes, and is left alone: move it away, or keep it"
    )
