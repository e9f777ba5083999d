"""A journal in a directory of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_common import database
from opencode_journal.journal import Journal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A state directory, which is not there yet."""
    return tmp_path / "state"


@pytest.fixture
def opened(directory: Path) -> Iterator[Callable[[], Journal]]:
    """Opens the journal of that directory, as each copy of the server does."""
    journals: list[Journal] = []

    def open_journal() -> Journal:
        journals.append(Journal(directory))
        return journals[-1]

    yield open_journal
    for journal in journals:
        journal.close()


@pytest.fixture
def journal(opened: Callable[[], Journal]) -> Journal:
    """The journal of that directory."""
    return opened()


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pages the journal's file may have when it is opened: its disk is full then."""
    limit = [1_000_000]

    def connect(path: Path | str, patience: float) -> sqlite3.Connection:
        connection = database.connect(path, patience)
        if path != ":memory:":
            connection.execute(f"PRAGMA max_page_count = {limit[0]}")
        return connection

    monkeypatch.setattr("opencode_journal.opening.connect", connect)
    return limit
