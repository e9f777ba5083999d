"""`close`: close an instance that was opened from afar, at the machine itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rich.text import Text

from opencode_connected.errors import LauncherError, UsageError
from opencode_connected.openings import Opening, Openings
from opencode_connected.result import CommandResult
from opencode_connected.state import StateDirectory
from opencode_connected.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from opencode_connected.settings import LauncherSettings


class CloseResult(CommandResult):
    """What was closed."""

    closed: list[Opening]

    def as_text(self) -> list[RenderableType]:
        """A line per instance."""
        return [
            Text(f"closed {each.name}, {each.directory}; what runs there goes on, and `opencode` there shows it")
            for each in self.closed
        ]


def close(settings: LauncherSettings, what: str) -> CloseResult:
    """Close what is called `what`, or is in that directory, on all lines of this user.

    Raises:
        UsageError: nothing of that name or directory was opened from afar.
        LauncherError: it cannot be written down.

    """
    directory = os.path.realpath(os.path.expanduser(what))  # noqa: PTH111 - a name is no path
    closed: list[Opening] = []
    known: list[str] = []
    with StateDirectory(settings.state_dir).locked():
        for openings in Openings.all_lines(settings.state_dir):
            found = openings.read()
            gone = [each for each in found if what in (each.name, each.directory) or each.directory == directory]
            known += [printable(each.name) for each in found]
            closed += [each.shown() for each in gone]
            if gone:
                try:
                    openings.write([each for each in found if each not in gone])
                except OSError as error:
                    raise LauncherError(f"cannot write {settings.state_dir}: {error.strerror}") from error
    if not closed:
        there = f"what was: {', '.join(known)}" if known else "nothing was"
        raise UsageError(f"{what!a} was not opened from afar; {there}. A launcher's own instance ends with it")
    return CloseResult(closed=closed)
