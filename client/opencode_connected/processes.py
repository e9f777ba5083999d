"""Which process is meant: a process id alone is reused, so its start time goes with it (docs/contract.md)."""

from __future__ import annotations

import os
import subprocess

_PS_SECONDS = 5.0
"""`ps` answers in milliseconds; a machine that needs longer is about to stand still."""

_WOBBLE_SECONDS = 2.0
"""ps computes the start from the boot time and the clock, and both are corrected while it runs."""


def start_of(pid: int) -> str:
    """Return when process `pid` started, as the contract writes it; empty where ps does not know."""
    seen = _look_at(pid)
    return seen[1] if seen else ""


def lives(pid: int, start: str) -> bool:
    """Tell whether process `pid` runs and is the one that started at `start`.

    In doubt it lives: where ps cannot tell, only the id counts, since what a living process owns is never taken.
    A zombie is dead: in a container nobody may ever reap it.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    seen = _look_at(pid)
    if seen is None:
        return True
    state, now = seen
    if not state or state.startswith("Z"):
        return False
    return not start or not now or now == start or _close(now, start)


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
