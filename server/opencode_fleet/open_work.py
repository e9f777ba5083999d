"""What the journal knows to be open at an instance: turns that run, asks that wait, and whether it is away.

It is kept as a state of the journal and written together with the entries that change it, so that whoever takes over
writes nothing twice. Only the leader writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from opencode_journal.journal import Journal

_KEY: Final = "open/"
_NAMES: Final = "open"
MAX_NAMES: Final = 1_000
"""Instances of which it is remembered that something is open there; of more nothing is said while they are away."""


@dataclass(slots=True, frozen=True)
class OpenAsk:
    """An ask that waits since `at` (epoch seconds) for root session `root`; `about` says what for."""

    at: float
    root: str
    is_question: bool = False
    about: str = ""
    title: str = ""


@dataclass(slots=True)
class Open:
    """What is open at one instance: titles of turns by root session, asks by id. `lost`: since when it is away."""

    turns: dict[str, str] = field(default_factory=dict)
    asks: dict[str, OpenAsk] = field(default_factory=dict)
    lost: float | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to remember."""
        return bool(self.turns or self.asks or self.lost is not None)


_ADAPTER: Final = TypeAdapter(Open)
_NAMES_ADAPTER: Final = TypeAdapter(list[str])


class OpenWork:
    """What is open, by the names of the instances."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def at(self, name: str) -> Open:
        """Return what is open at an instance; nothing where that cannot be read."""
        value = self._journal.state(_KEY + name)
        try:
            return Open() if value is None else _ADAPTER.validate_python(value)
        except ValidationError:
            return Open()  # of a later version: what is open there is recorded anew

    def names(self) -> list[str]:
        """Return the instances that anything is, or was, open at."""
        value = self._journal.state(_NAMES)
        try:
            return [] if value is None else _NAMES_ADAPTER.validate_python(value)
        except ValidationError:
            return []

    def set(self, name: str, open_: Open) -> None:
        """Set what is open at an instance; call it in the transaction that writes the entries about it."""
        names = self.names()
        if open_ and name not in names:
            # Those that have nothing open any more make room.
            kept = [known for known in names if len(names) < MAX_NAMES or self.at(known)]
            if len(kept) < MAX_NAMES:
                self._journal.set_state(_NAMES, [*kept, name])
        self._journal.set_state(_KEY + name, _ADAPTER.dump_python(open_) if open_ else None)
