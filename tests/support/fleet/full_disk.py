"""Fills a journal whose file may not grow any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_journal.entries import ASK_OPENED
from opencode_journal.errors import NotKept

if TYPE_CHECKING:
    from opencode_journal.journal import Journal


def fill(journal: Journal) -> int:
    """Append durable entries until no more goes in; return how many did."""
    for count in range(1000):
        try:
            journal.append(ASK_OPENED, "laptop", data={"text": "x" * 4000}, durable=True)
        except NotKept as refused:
            assert "database or disk is full; make room on its disk" in str(refused)  # noqa: PT017 # not at once
            return count
    pytest.fail("there is always room")
