"""Up to where a caller has been told what happened: what `inbox` and `wait` give out as a cursor.

A wait for some instances only must not hide what happens on the others. Its cursor says both: up to where everything
was told, and up to where these were. Given to anything but the same wait, only the former counts, so that some things
are told again and none is lost.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from opencode_fleet.errors import Refused
from opencode_journal.cursor import Cursor
from opencode_journal.errors import CursorError, NotACursor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opencode_journal.journal import Journal

_MARK_CHARACTERS: Final = 6
_FORM: Final = re.compile(rf"(.+?)(?:\+([0-9]{{1,18}})-([0-9a-f]{{{_MARK_CHARACTERS}}}))?")


class Place(NamedTuple):
    """Everything up to `seq` was told, and what is of the instances with `mark` up to `narrow`."""

    epoch: str
    seq: int
    mark: str = ""
    narrow: int = 0

    def __str__(self) -> str:
        cursor = Cursor(self.epoch, self.seq)
        return f"{cursor}+{self.narrow}-{self.mark}" if self.mark else str(cursor)

    @classmethod
    def parse(cls, text: str, journal: Journal) -> Self:
        """Return the place that `text`, as made by `str`, means in this journal.

        Raises:
            Refused: it is no cursor, too old, or of another journal; the message says what to do.
        """
        found = _FORM.fullmatch(text.strip())
        try:
            if found is None:
                raise NotACursor("this is no cursor: give one as it was returned, or none to begin anew")
            cursor = Cursor.parse(found[1])
            place = cls(cursor.epoch, cursor.seq, found[3] or "", int(found[2] or 0))
            place.check(journal)
        except CursorError as error:
            raise Refused(str(error)) from None
        return place

    @classmethod
    def now(cls, journal: Journal) -> Self:
        """Return the place of who has been told everything."""
        cursor = journal.cursor()
        return cls(cursor.epoch, cursor.seq)

    def check(self, journal: Journal) -> None:
        """See that the journal still has what follows.

        Raises:
            CursorError: it has not; the message says what to do.
        """
        journal.seq_of(Cursor(self.epoch, max(self.seq, self.narrow)))
        journal.seq_of(Cursor(self.epoch, self.seq))

    def start(self, mark: str) -> int:
        """Return after which number something is new for the instances with `mark`; an empty one means all."""
        return max(self.seq, self.narrow) if mark and mark == self.mark else self.seq

    def told(self, mark: str, seq: int) -> Place:
        """Return the place after all up to `seq` was told of the instances with `mark`."""
        return self._replace(mark=mark, narrow=seq) if mark else Place(self.epoch, seq)


def mark_of(names: Iterable[str]) -> str:
    """Return what tells these instances from any others; empty for none, which means all."""
    listed = "\n".join(sorted(set(names)))
    return hashlib.sha256(listed.encode()).hexdigest()[:_MARK_CHARACTERS] if listed else ""
