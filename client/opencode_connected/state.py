"""What a running launcher tells `status`, `sessions` and `cleanup`: one file per instance in the state directory.

The file is private (mode 0600), replaced atomically, holds no secret, and goes when the launcher ends.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from opencode_connected import processes

_HISTORY_LENGTH = 30
_MAX_FILE_BYTES = 256 * 1024
_STATE_FILE = re.compile(r"[0-9a-f]{32}\.json")

LineStatus = Literal["connecting", "connected", "waiting", "failed", "closed"]
"""`waiting` for the next try after a fault that may pass; `failed` for good."""


def now() -> datetime:
    """Return the present time in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


class LineEvent(BaseModel):
    """One change of the line to the relay."""

    at: datetime
    status: LineStatus
    detail: str = ""
    """What happened and what helps, one line."""


class InstanceState(BaseModel):
    """One instance of this machine, as its launcher sees it."""

    instance_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    launcher_pid: int
    launcher_start: str
    """When the launcher's process started, as docs/contract.md writes it."""
    started_at: datetime
    hostname: str
    cwd: str
    mode: Literal["local", "relay"]
    headless: bool
    log_file: Path
    opencode_pid: int | None = None
    opencode_version: str | None = None
    local_port: int | None = None
    port: int | None = None
    """Where a reader of the registry reaches it: the tunnel's port, or `local_port` without a relay."""
    name: str | None = None
    """The registered name; None until it is registered."""
    line: list[LineEvent] = []
    """The line's history, oldest first; empty without a relay."""

    def note(self, event: LineEvent) -> None:
        """Add to the line's history, which keeps its newest entries."""
        self.line = [*self.line, event][-_HISTORY_LENGTH:]

    def launcher_lives(self) -> bool:
        """Tell whether the launcher that wrote this still runs."""
        return processes.lives(self.launcher_pid, self.launcher_start)


class StateDirectory:
    """The state files below `state_dir`."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "instances"

    def write(self, state: InstanceState) -> None:
        """Write or replace the file of this instance."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._path, prefix=".")  # made with mode 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(state.model_dump_json())
            Path(temporary).replace(self._file(state.instance_id))
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise

    def remove(self, instance_id: str) -> None:
        """Remove the file of this instance, if there is one."""
        self._file(instance_id).unlink(missing_ok=True)

    def read_all(self) -> list[InstanceState]:
        """Return all instances that have a readable file, the oldest first."""
        found = []
        for path in self._path.glob("*.json"):
            with suppress(OSError, ValidationError):
                if _STATE_FILE.fullmatch(path.name) and path.stat().st_size <= _MAX_FILE_BYTES:
                    found.append(InstanceState.model_validate_json(path.read_bytes()))
        return sorted(found, key=lambda state: (state.started_at, state.instance_id))

    def _file(self, instance_id: str) -> Path:
        return self._path / f"{instance_id}.json"
