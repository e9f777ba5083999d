"""The launcher's log: one rotating file per instance, since two processes cannot rotate one file safely."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Final

from opencode_connected.text import printable

if TYPE_CHECKING:
    from pathlib import Path

LOGGER: Final = logging.getLogger("opencode_connected")

_MAX_BYTES = 512 * 1024
_BACKUPS = 1
_KEPT_LOGS = 20
"""Logs of earlier instances that stay for reading; older ones are removed at the next start."""
_MAX_LINE = 2000
_TAIL_BYTES = 64 * 1024


class _Formatter(logging.Formatter):
    """One line per record, with nothing in it that a terminal acts upon, whoever's text was logged."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record).replace("\n", " | "), limit=_MAX_LINE)


def log_file(state_dir: Path, instance_id: str) -> Path:
    """Return where the instance's log is."""
    return state_dir / "log" / f"{instance_id}.log"


def open_log(path: Path) -> logging.Handler:
    """Send the launcher's log to `path` from now on, and drop the oldest logs beside it.

    Without a log (a full disk, a read-only home) the launcher works all the same.
    """
    handler: logging.Handler
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _prune(path.parent)
        path.touch(mode=0o600)
        handler = RotatingFileHandler(
            path, maxBytes=_MAX_BYTES, backupCount=_BACKUPS, encoding="utf-8", errors="replace"
        )
        handler.handleError = lambda record: None  # type: ignore[method-assign] # the default prints over the TUI
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(_Formatter("{asctime} {levelname} {message}", style="{"))
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.addHandler(handler)
    return handler


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of the log at `path`; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            content = file.read(_TAIL_BYTES)
    except OSError:
        return []
    return [printable(line, limit=_MAX_LINE) for line in content.decode(errors="replace").splitlines()[-lines:]]


def _prune(directory: Path) -> None:
    """Remove all but the newest logs of instances that have ended (those that run have a state file)."""

    def changed(path: Path) -> float:
        with suppress(OSError):
            return path.stat().st_mtime
        return 0.0

    running = {path.stem for path in directory.parent.glob("instances/*.json")}
    ended = [path for path in directory.glob("*.log*") if path.name.partition(".")[0] not in running]
    for path in sorted(ended, key=changed, reverse=True)[_KEPT_LOGS:]:
        path.unlink(missing_ok=True)
