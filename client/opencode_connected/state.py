"""What a running launcher tells `status`, `sessions` and `cleanup`: one file per instance in the state directory.

The file is private (mode 0600), replaced atomically, holds no secret, and goes when the launcher ends.
"""

from __future__ import annotations

import fcntl
import re
import socket
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from opencode_connected import names, processes
from opencode_connected.errors import NameTaken
from opencode_connected.files import write_private
from opencode_connected.line.state import EventKind, Phase  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MAX_FILE_BYTES = 256 * 1024
_STATE_FILE = re.compile(r"[0-9a-f]{32}\.json")


def now() -> datetime:
    """Return the present time in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


class StoredLineEvent(BaseModel):
    """Something that happened to the line to the relay."""

    model_config = ConfigDict(from_attributes=True)

    at: str
    kind: EventKind
    text: str
    remedy: str


class LineReport(BaseModel):
    """The line to the relay, as `line.state.LineState` has it."""

    model_config = ConfigDict(from_attributes=True)

    phase: Phase
    since: str
    port: int | None
    error: str | None
    remedy: str | None
    reconnects: int
    history: list[StoredLineEvent]
    """The last events, oldest first."""


class InstanceState(BaseModel):
    """One instance, as its launcher sees it."""

    instance_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    launcher_pid: int
    launcher_start: str
    """By what the launcher's process is told from a later one of that number: `processes.mark_of`."""
    started_at: datetime
    hostname: str
    cwd: str
    mode: Literal["local", "relay"]
    headless: bool
    registry_dir: str
    """Where it registers: on this machine, or on the relay."""
    log_file: Path
    opencode_pid: int | None = None
    opencode_start: str = ""
    """As `launcher_start`."""
    opencode_version: str | None = None
    local_port: int | None = None
    port: int | None = None
    """Where a reader of the registry reaches it: the tunnel's port, or `local_port` without a relay."""
    name: str | None = None
    """The registered name; None until it is registered."""
    line: LineReport | None = None
    """None without a relay."""
    generation: Literal[1, 2] = 1
    """Of OpenCode's API."""
    rights: list[str] = []
    """What may come from afar."""
    directories: list[str] = []
    """What may be worked in from afar, besides `directory`: roots, with everything below them."""
    open_below: list[str] = []
    """Where directories may be opened from afar while this launcher runs."""
    directory: str | None = None
    """OpenCode 2: the directory that this launcher opened, without symbolic links."""
    line_key: str | None = None
    """OpenCode 2: which line it shares with other launchers (`agents.line_lock.line_key`)."""
    holds_line: bool = True
    """False where another launcher's line makes this one reachable."""

    @property
    def is_here(self) -> bool:
        """Whether it is of this machine. Another one that shares the home, or a container, has processes of its own.

        What lives there cannot be told from here.
        """
        return self.hostname == socket.gethostname()

    def launcher_lives(self) -> bool:
        """Tell whether the launcher that wrote this still runs; only where it `is_here`."""
        return processes.lives(self.launcher_pid, self.launcher_start)

    def opencode_lives(self) -> bool:
        """Tell whether the OpenCode that the launcher started still runs; only where it `is_here`."""
        return self.opencode_pid is not None and processes.lives(self.opencode_pid, self.opencode_start)


class StateDirectory:
    """The state files below `state_dir`."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "instances"

    def write(self, state: InstanceState) -> None:
        """Write or replace the file of this instance."""
        write_private(self._file(state.instance_id), state.model_dump_json())

    def remove(self, instance_id: str) -> None:
        """Remove the file of this instance, if there is one."""
        self._file(instance_id).unlink(missing_ok=True)

    def read_here(self) -> list[InstanceState]:
        """Return those of `read_all` that are of this machine."""
        return [state for state in self.read_all() if state.is_here]

    def read_all(self) -> list[InstanceState]:
        """Return all instances that have a readable file, the oldest first; some may be of other machines."""
        found = []
        for path in self._path.glob("*.json"):
            with suppress(OSError, ValidationError):
                if _STATE_FILE.fullmatch(path.name) and path.stat().st_size <= _MAX_FILE_BYTES:
                    found.append(InstanceState.model_validate_json(path.read_bytes()))
        return sorted(found, key=lambda state: (state.started_at, state.instance_id))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other launcher of this user choose a name meanwhile. Where there can be no lock, there is none."""
        with ExitStack() as stack:
            with suppress(OSError):
                self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = stack.enter_context((self._path / ".names.lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def name_for(
        self, mine: InstanceState, wanted: str, *, is_default: bool, from_afar: Mapping[str, str] | None = None
    ) -> str:
        """Return what `mine`, which shares a line, is called: as others in its directory are, and nobody else.

        `from_afar`: the names, by directory, of what was opened from afar. An explicit name may be one of them.

        Raises:
            NameTaken: `wanted` is explicit, and another directory's.

        """
        others = [
            state
            for state in self.read_here()
            if state.instance_id != mine.instance_id and state.line_key == mine.line_key and state.launcher_lives()
        ]
        taken = {state.name: state for state in others if state.directory != mine.directory and state.name}
        if not is_default:
            if holder := taken.get(wanted):
                raise NameTaken(
                    f"the name {wanted!r} is held by the launcher of process {holder.launcher_pid}, in "
                    f"{holder.directory}: end it, or choose another INSTANCE_NAME"
                )
            return wanted
        afar = dict(from_afar or {})
        same = next((state.name for state in others if state.directory == mine.directory and state.name), None)
        same = same or afar.pop(mine.directory or "", None)
        held = {*taken, *afar.values()}
        return same or next((name for name in names.candidates(wanted) if name not in held), wanted)

    def _file(self, instance_id: str) -> Path:
        return self._path / f"{instance_id}.json"
