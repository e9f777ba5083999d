"""What the journal knows to be open at an instance: turns that run, asks that wait, and whether it is away.

It is kept as a state of the journal and written together with the entries that change it, so that whoever takes over
writes nothing twice. Only the leader writes it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from opencode_journal.journal import Journal

_KEY: Final = "open/"
MAX_NAMES: Final = 400
"""Instances of one machine of which it is remembered what is open there."""
MAX_BYTES: Final = 2_000_000
"""Of what is remembered of one machine, as JSON.

Beyond either, those of the same machine that are away for longest are forgotten; then nothing more is recorded.
"""


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
    """What is open at one instance: titles of turns by root session, asks by id. `lost`: since when it is away.

    `machine`: whose room it takes; the machines of a plain account, which cannot be told apart, are one, and empty.
    `directory`: where it is, or was; empty where that was not recorded.
    """

    turns: dict[str, str] = field(default_factory=dict)
    asks: dict[str, OpenAsk] = field(default_factory=dict)
    lost: float | None = None
    machine: str = ""
    directory: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to remember."""
        return bool(self.turns or self.asks or self.lost is not None)


class _Held(NamedTuple):
    machine: str
    size: int
    lost: float | None


class _Room(NamedTuple):
    """What one machine takes, or would take."""

    names: int
    size: int

    def is_there(self) -> bool:
        return self.names <= MAX_NAMES and self.size <= MAX_BYTES


_ADAPTER: Final = TypeAdapter(Open)


class OpenWork:
    """What is open, by the names of the instances."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._counted = ""
        """The journal's epoch for which the next three hold."""
        self._held: dict[str, _Held] = {}
        self._names: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def at(self, name: str) -> Open:
        """Return what is open at an instance; nothing where that cannot be read."""
        value = self._journal.state(_KEY + name)
        return Open() if value is None else _read(value)

    def names(self) -> list[str]:
        """Return the instances that anything is open at."""
        names = [key.removeprefix(_KEY) for key in self._journal.state_keys(_KEY)]
        if len(names) < len(self._held):
            self.recount()  # the journal has pruned some
        return names

    def machine_of(self, name: str) -> str:
        """Return the machine of one of `names`."""
        self._count()
        return self._held[name].machine if name in self._held else ""

    def has_room(self, name: str, open_: Open) -> bool:
        """Whether `open_` may be set: what becomes less always may."""
        self._count()
        return self._shrinks(name, open_) or self._evicted(name, open_) is not None

    def set(self, name: str, open_: Open) -> None:
        """Set what is open at an instance; call it in the transaction that writes the entries about it.

        Others of its machine are forgotten for it if that has no room else.
        """
        self._count()
        evicted = [] if self._shrinks(name, open_) else self._evicted(name, open_) or []
        for other in evicted:
            self._set(other, Open())
        self._set(name, open_)

    def _set(self, name: str, open_: Open) -> None:
        self._journal.set_state(_KEY + name, _ADAPTER.dump_python(open_) if open_ else None)
        self._hold(name, _held(open_))

    def _shrinks(self, name: str, open_: Open) -> bool:
        held, size = self._held.get(name), _size(open_)
        return not size or (held is not None and held.machine == open_.machine and size <= held.size)

    def _evicted(self, name: str, open_: Open) -> list[str] | None:
        """Return which of its machine go so that there is room for `open_`; None if there is none all the same."""
        machine = open_.machine
        held = self._held.get(name)
        is_counted = held is not None and held.machine == machine
        room = _Room(
            self._names[machine] + (not is_counted),
            self._bytes[machine] + _size(open_) - (held.size if held is not None and is_counted else 0),
        )
        evicted: list[str] = []
        if room.is_there():
            return evicted
        away = [
            (each.lost, other, each.size)
            for other, each in self._held.items()
            if each.lost is not None and each.machine == machine and other != name
        ]
        for _, other, size in sorted(away):
            evicted.append(other)
            room = _Room(room.names - 1, room.size - size)
            if room.is_there():
                return evicted
        return None

    def recount(self) -> None:
        """Count anew who takes how much room, when that is asked next: somebody else has written meanwhile."""
        self._counted = ""

    def _count(self) -> None:
        if self._counted == self._journal.epoch:
            return
        states = self._journal.states(_KEY)
        self._held, self._names, self._bytes = {}, Counter(), Counter()
        self._counted = self._journal.epoch
        for key, value in states.items():
            open_ = _read(value)
            self._hold(key.removeprefix(_KEY), _held(open_))

    def _hold(self, name: str, held: _Held) -> None:
        before = self._held.pop(name, None)
        if before is not None:
            self._add(before.machine, -1, -before.size)
        if held.size:
            self._held[name] = held
            self._add(held.machine, 1, held.size)

    def _add(self, machine: str, names: int, size: int) -> None:
        self._names[machine] += names
        self._bytes[machine] += size
        if not self._names[machine]:
            del self._names[machine], self._bytes[machine]


def _read(value: object) -> Open:
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError:
        return Open()  # of a later version: what is open there is recorded anew


def _held(open_: Open) -> _Held:
    return _Held(open_.machine, _size(open_), open_.lost)


def _size(open_: Open) -> int:
    return len(_ADAPTER.dump_json(open_)) if open_ else 0
