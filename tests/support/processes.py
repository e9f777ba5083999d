"""Looking at processes that may end while one looks: a process that is gone is an answer, never an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable


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
