"""Another process that holds the write lock of a database, as a long command or a stuck one does."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROGRAM = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
database.execute("ROLLBACK")
"""


class Holder:
    """The process, which has the lock until it is told to let go."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def let_go(self) -> None:
        self._process.communicate("\n", timeout=30)


@contextmanager
def locked(path: Path) -> Iterator[Holder]:
    """Hold the lock of the database at `path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield Holder(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
