"""Cursors: up to where a caller has seen the journal, as a text like `k7m2xp.1204`."""

from __future__ import annotations

import re
import secrets
from typing import Final, NamedTuple, Self

from opencode_journal.errors import NotACursor

_ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"
"""None of it looks like another."""
_EPOCH_CHARACTERS: Final = 6
_FORM: Final = re.compile(rf"([{_ALPHABET}]{{{_EPOCH_CHARACTERS}}})\.(0|[1-9][0-9]{{0,17}})")


def new_epoch() -> str:
    """Return what tells one journal from all others."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_EPOCH_CHARACTERS))


class Cursor(NamedTuple):
    """All entries up to `seq` were seen."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` made.

        Raises:
            NotACursor: it made nothing like it.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise NotACursor("this is no cursor: give one as it was returned, or none to begin anew")
        return cls(found[1], int(found[2]))
