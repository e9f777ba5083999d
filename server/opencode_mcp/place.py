"""Up to where a caller has been told what happened: what `inbox` and `wait` give out as a cursor.

A wait for some instances only must not hide what happens on the others. Its cursor says both: up to where everything
was told, and up to where these were. Given to anything but the same wait, only the former counts, so that some things
are told again and none is lost.

A first wait may find more asks than one answer lists. Then its cursor says from which one on they are still to be
told, oldest first: that one is the next wait's first.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from opencode_journal.cursor import Cursor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opencode_fleet.inbox import Waiting

_MARK_CHARACTERS: Final = 6
_HASH: Final = rf"[0-9a-f]{{{_MARK_CHARACTERS}}}"
_FORM: Final = re.compile(rf"(.+?)(?:\+([0-9]{{1,18}})-({_HASH}))?(?:~([0-9]{{1,18}})-({_HASH}))?")


class Rank(NamedTuple):
    """Where an ask stands among those that wait, oldest first: it stays the same while it waits."""

    since: int
    """Epoch microseconds."""
    mark: str

    @classmethod
    def of(cls, waiting: Waiting) -> Self:
        """Return an ask's rank."""
        return cls(round(waiting.since * 1e6), _hash(f"{waiting.instance}\n{waiting.id}"))


class Place(NamedTuple):
    """Everything up to `told` was told, and what is of the instances with `mark` up to number `narrow`.

    But for the asks from `rest` on, if there is one, that waited already.
    """

    told: Cursor
    mark: str = ""
    narrow: int = 0
    rest: Rank | None = None

    def __str__(self) -> str:
        narrow = f"+{self.narrow}-{self.mark}" if self.mark else ""
        rest = f"~{self.rest.since}-{self.rest.mark}" if self.rest else ""
        return f"{self.told}{narrow}{rest}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` made.

        Raises:
            NotACursor: it made nothing like it; the message says what to do.
        """
        found = _FORM.fullmatch(text.strip())
        told = Cursor.parse(found[1] if found else "")
        if found is None:
            return cls(told)
        rest = Rank(int(found[4]), found[5]) if found[4] else None
        return cls(told, found[3] or "", int(found[2] or 0), rest)

    def start(self, mark: str) -> Cursor:
        """Return after which place something is new for the instances with `mark`; an empty one means all."""
        return self.told._replace(seq=self.narrow) if mark and mark == self.mark else self.told

    def after(self, mark: str, told: Cursor) -> Place:
        """Return the place of who was told everything of the instances with `mark` up to `told`."""
        return Place(self.told, mark, told.seq) if mark else Place(told)


def mark_of(names: Iterable[str]) -> str:
    """Return what tells these instances from any others; empty for none, which means all."""
    listed = "\n".join(sorted(set(names)))
    return _hash(listed) if listed else ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_MARK_CHARACTERS]
