"""Which process is meant: a process id alone is reused, so its start goes with it (docs/contract.md)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

_PS_SECONDS = 5.0
"""`ps` answers in milliseconds; a machine that needs longer is about to stand still."""

_WOBBLE_SECONDS = 2.0
"""ps computes the start from the boot time and the clock, and both are corrected while it runs."""


_SINCE = re.compile(r"[0-9a-f-]{36}:\d+")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STATE, _START_TICKS = 0, 19
"""Columns of /proc/PID/stat behind the program's name."""


def since_of(pid: int) -> str:
    """Return the boot and the ticks from it to the start of process `pid`, `BOOT:TICKS`: no clock moves them.

    Empty where there is no /proc, or no such process.
    """
    try:
        return _since(pid)[1]
    except (OSError, IndexError):
        return ""


def mark_of(pid: int) -> str:
    """Return what `lives` tells process `pid` by: `since_of`, or `start_of` where there is no /proc."""
    return since_of(pid) or start_of(pid)


def start_of(pid: int) -> str:
    """Return when process `pid` started, as the contract writes it; empty where ps does not know."""
    seen = _look_at(pid)
    return seen[1] if seen else ""


def lives(pid: int, start: str) -> bool:
    """Tell whether process `pid` runs and is the one that `start`, its `start_of` or `since_of`, was told of.

    In doubt it lives: where ps cannot tell, only the id counts, since what a living process owns is never taken.
    A zombie is dead: in a container nobody may ever reap it.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    if _SINCE.fullmatch(start):
        return _is_since(pid, start)
    seen = _look_at(pid)
    if seen is None:
        return True
    state, now = seen
    if not state or state.startswith("Z"):
        return False
    return not start or not now or now == start or _close(now, start)


def _is_since(pid: int, since: str) -> bool:
    try:
        state, now = _since(pid)
    except FileNotFoundError:
        return False
    except (OSError, IndexError):
        return True
    return state not in ("Z", "X") and now == since


def _since(pid: int) -> tuple[str, str]:
    """Return state and `since_of` of process `pid`."""
    columns = Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()
    return columns[_STATE], f"{_BOOT_ID.read_text().strip()}:{columns[_START_TICKS]}"


def _look_at(pid: int) -> tuple[str, str] | None:
    """Return state and start of process `pid` (both empty if it is gone), or None if ps cannot be asked."""
    environment = {"LC_ALL": "C", "TZ": "UTC0", "PATH": os.environ.get("PATH", os.defpath)}
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    try:
        answer = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PS_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    state, _, start = answer.stdout.decode(errors="replace").strip().partition(" ")
    return state, "_".join(start.split())


def _close(one: str, other: str) -> bool:
    import calendar  # noqa: PLC0415 - with strptime it loads a good deal, and equal stamps never need it
    import time  # noqa: PLC0415

    try:
        seconds = [calendar.timegm(time.strptime(stamp, "%a_%b_%d_%H:%M:%S_%Y")) for stamp in (one, other)]
    except ValueError:
        return False
    return abs(seconds[0] - seconds[1]) <= _WOBBLE_SECONDS
