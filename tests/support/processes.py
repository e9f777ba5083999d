"""Looking at processes that may end while one looks: a process that is gone is an answer, never an error."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_END_SECONDS = 20.0


def name_of(process: psutil.Process) -> str:
    """Return the process's name; nothing if it is gone."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def named(name: str, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those of `processes` that have this name."""
    return [process for process in processes if name_of(process) == name]


def has_ended(process: psutil.Process) -> bool:
    """Tell whether the process has ended (a zombie that nobody reaps here has)."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def descendants(pid: int) -> list[psutil.Process]:
    """Return all that the process has started and that still hangs on it; nothing if it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def with_home(home: Path) -> list[psutil.Process]:
    """Return the processes whose HOME it is: they are found whoever started them, and however they were orphaned."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("HOME") == str(home):
                found.append(process)
    return found


def end_all(processes: Iterable[psutil.Process]) -> None:
    """Kill them, and return when they are gone."""
    listed = list(processes)
    for process in listed:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs([each for each in listed if not has_ended(each)], _END_SECONDS)
    assert all(has_ended(process) for process in alive), f"still there after SIGKILL: {alive}"
