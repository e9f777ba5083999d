"""Changed files as both generations of OpenCode tell them, validated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import Field

from opencode_fleet.agents.shapes import Number, Short, Text, Wire
from opencode_fleet.changes import FileChange

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTEXT: Final = "3"
"""Unchanged lines around each hunk; unasked, OpenCode tells the whole file."""
MAX_FILES: Final = 2_000
TOO_LARGE: Final = "All that a turn changed comes at once; `changes` without `session` shows the working tree instead"
"""What a person can do where a turn changed too much to be told."""


class ChangedFile(Wire):
    """A file of a list of changes, with or without its patch."""

    file: str = Field(min_length=1, max_length=4096)
    status: Short = ""
    additions: Number = 0
    deletions: Number = 0
    patch: Text = ""

    def domain(self) -> FileChange:
        """Return it in the fleet's words."""
        return FileChange(
            file=self.file,
            status=self.status,
            additions=int(self.additions),
            deletions=int(self.deletions),
            patch=self.patch,
        )


def merged(counted: Iterable[ChangedFile], patched: Iterable[ChangedFile]) -> tuple[FileChange, ...]:
    """Return the files of both lists, by name: figures as `counted` has them, patches as `patched` has them.

    OpenCode 1 counts nothing of a new file, and leaves its patch empty, where it works below its repository's root.
    """
    files = {each.file: each.domain() for each in patched}
    for each in counted:
        known = files.get(each.file)
        files[each.file] = each.model_copy(update={"patch": known.patch if known else ""}).domain()
    return tuple(files[name] for name in sorted(files)[:MAX_FILES])
