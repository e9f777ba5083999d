"""A stand-in for systemctl on a machine without systemd: it knows of one property alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SYSTEMCTL = """#!/bin/sh
case "$*" in
"show --value --property NeedDaemonReload "*) cat '{answer}' ;;
*) echo "Unknown command verb" >&2; exit 1 ;;
esac
"""


class FakeSystemctl:
    """Put a `systemctl` into a directory, for which there is nothing to reload."""

    def __init__(self, directory: Path) -> None:
        self._answer = directory / "need-daemon-reload"
        program = directory / "systemctl"
        program.write_text(_SYSTEMCTL.format(answer=self._answer))
        program.chmod(0o755)
        self.needs_reload(is_so=False)

    def needs_reload(self, *, is_so: bool) -> None:
        """Have it say whether a unit's file is another than it has read."""
        self._answer.write_text("yes\n" if is_so else "no\n")
