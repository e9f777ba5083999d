"""Up to where a caller has been told what happened: what `inbox` and `wait` give out as a cursor.

A wait for some instances only must not hide what happens on the others. Its cursor says both: up to where everything
was told, and up to where these were. Given to anything but the same wait, only the former counts, so that some things
are told again and none is lost.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from opencode_journal.cursor import Cursor

if TYPE_CHECKING:
    from collections.abc import Iterable

_MARK_CHARACTERS: Final = 6
_FORM: Final = re.compile(rf"(.+?)(?:\+([0-9]{{1,18}})-([0-9a-f]{{{_MARK_CHARACTERS}}}))?")


class Place(NamedTuple):
    """Everything up to `told` was told, and what is of the instances with `mark` up to number `narrow`."""

    told: Cursor
    mark: str = ""
    narrow: int = 0

    def __str__(self) -> str:
        return f"{self.told}+{self.narrow}-{self.mark}" if self.mark else str(self.told)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` made.

        Raises:
            NotACursor: it made nothing like it; the message says what to do.
        """
        found = _FORM.fullmatch(text.strip())
        told = Cursor.parse(found[1] if found else "")
        return cls(told, found[3], int(found[2])) if found and found[3] else cls(told)

    def start(self, mark: str) -> Cursor:
        """Return after which place something is new for the instances with `mark`; an empty one means all."""
        return self.told._replace(seq=self.narrow) if mark and mark == self.mark else self.told

    def after(self, mark: str, told: Cursor) -> Place:
        """Return the place of who was told everything of the instances with `mark` up to `told`."""
        return Place(self.told, mark, told.seq) if mark else Place(told)


def mark_of(names: Iterable[str]) -> str:
    """Return what tells these instances from any others; empty for none, which means all."""
    listed = "\n".join(sorted(set(names)))
    return hashlib.sha256(listed.encode()).hexdigest()[:_MARK_CHARACTERS] if listed else ""
