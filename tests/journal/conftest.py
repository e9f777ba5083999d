"""A journal in a directory of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_journal.journal import Journal

if TYPE_CHECKING:
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
