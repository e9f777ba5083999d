"""The directories that were opened from afar: a file for each line, which outlives the launcher that wrote it.

It is private (mode 0600), replaced atomically, and read by all launchers of the line. Whoever changes it holds
`StateDirectory.locked`, as names are chosen by it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, ValidationError

from opencode_connected.files import write_private
from opencode_connected.guard.policy import MAX_DIRECTORY
from opencode_connected.names import MAX_CHARACTERS
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from opencode_connected.state import InstanceState

_MAX_FILE_BYTES = 1024 * 1024


class Opening(BaseModel):
    """A directory that was opened from afar."""

    directory: str = Field(pattern="^/", max_length=MAX_DIRECTORY)
    """Absolute, and without symbolic links when it was opened."""
    name: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    """What its instance is called."""
    opened_at: datetime

    def shown(self) -> Opening:
        """Return it as it may be shown on a terminal."""
        return self.model_copy(update={"directory": printable(self.directory), "name": printable(self.name)})


class _Kept(BaseModel):
    openings: list[Opening]


class Openings:
    """What was opened from afar and not closed since, of the line `line_key`."""

    def __init__(self, state_dir: Path, line_key: str) -> None:
        self._file = _directory(state_dir) / f"{line_key}.json"

    @classmethod
    def all_lines(cls, state_dir: Path) -> Iterator[Openings]:
        """Yield those of every line that has some."""
        for path in sorted(_directory(state_dir).glob("*.json")):
            yield cls(state_dir, path.stem)

    def read(self) -> list[Opening]:
        """Return them, the oldest first. A file that is damaged or too large has none."""
        with suppress(OSError, ValidationError):
            if self._file.stat().st_size <= _MAX_FILE_BYTES:
                return _Kept.model_validate_json(self._file.read_bytes()).openings
        return []

    def write(self, openings: Sequence[Opening]) -> None:
        """Keep these, and no others.

        Raises:
            OSError: they cannot be kept; it is as it was.

        """
        if openings:
            write_private(self._file, _Kept(openings=list(openings)).model_dump_json())
        else:
            self._file.unlink(missing_ok=True)


def openings_of(state_dir: Path, launcher: InstanceState) -> list[Opening]:
    """Return what stays open from afar as long as `launcher` runs, made printable; only a headless one has any."""
    if not launcher.headless or launcher.line_key is None:
        return []
    return [each.shown() for each in Openings(state_dir, launcher.line_key).read()]


def _directory(state_dir: Path) -> Path:
    return state_dir / "openings"
