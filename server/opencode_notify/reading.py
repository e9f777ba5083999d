"""The server's journal for who only reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_journal.journal import Journal
from opencode_journal.leader import Leader

if TYPE_CHECKING:
    from pathlib import Path

_DAYS: Final = 365
"""The most that a server may keep: who only reads forgets nothing before a server does."""


class _Onlooker(Leader):
    """Never stands: the server's own leader writes, and nothing of ours must go into its file."""

    def __init__(self) -> None:
        super().__init__(None)

    def look(self) -> None:
        """Stay as it is."""


def read_journal(directory: Path) -> Journal:
    """Open the journal of a state directory to read it."""
    return Journal(directory, _DAYS, _Onlooker())
