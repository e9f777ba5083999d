"""What must be told, as the journal has it: asks that nobody answered, machines that are away, and what ended.

The first two are read of what is open, never of what happened: whoever begins late tells what was missed.
What ended is read from a cursor on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from opencode_journal.entries import (
    INSTANCE_BACK,
    MESSAGE,
    MESSAGE_ANSWERED,
    MESSAGE_EXPIRED,
    MESSAGE_FAILED,
    TURN_ENDED,
    TURN_FAILED,
    TURN_STARTED,
)
from opencode_journal.errors import CursorError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opencode_journal.cursor import Cursor
    from opencode_journal.entries import Entry
    from opencode_journal.journal import Journal
    from opencode_notify.rules import Event, NoticeRules

_OPEN: Final = "open/"
"""What the keys of states begin with that say what is open at an instance."""
_ASK: Final = "ask/"
"""What keys of asks begin with."""
_BATCH: Final = 500
_TURNS: Final = frozenset({TURN_ENDED, TURN_FAILED})
_ENDS: Final[dict[str, Event]] = {
    TURN_ENDED: "done",
    TURN_FAILED: "failed",
    MESSAGE_ANSWERED: "done",
    MESSAGE_FAILED: "failed",
    MESSAGE_EXPIRED: "failed",
    INSTANCE_BACK: "back",
}
_LOOKED_AT: Final = frozenset({*_ENDS, TURN_STARTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to be told. Strings are as the machine gave them."""

    key: str
    """The same whenever the journal is read."""
    event: Event
    instance: str
    at: float
    """Epoch seconds."""
    title: str = ""
    about: str = ""
    """Of an ask: what for. Its first word is what an agent calls the kind of permission."""
    seconds: float | None = None
    """For how long a turn ran that is done; None where that is not known."""

    @property
    def is_open(self) -> bool:
        """Whether it can be settled, and need not be told then."""
        return self.event in {"permission", "answer", "lost"}

    @property
    def ask(self) -> tuple[str, str] | None:
        """The instance and the agent's own id of an ask; None: it is none."""
        head = f"{_ASK}{self.instance}/"
        return (self.instance, self.key.removeprefix(head)) if self.key.startswith(head) else None


class _Ask(BaseModel):
    model_config = ConfigDict(extra="ignore")

    at: float
    is_question: bool = False
    about: str = ""
    title: str = ""


class _Open(BaseModel):
    model_config = ConfigDict(extra="ignore")

    turns: dict[str, str] = {}
    asks: dict[str, _Ask] = {}
    lost: float | None = None


class DueEnds(NamedTuple):
    """What ended after a cursor."""

    items: list[Item]
    started: dict[tuple[str, str], float]
    """Since when turns run, by instance and session: of those that began in what was read."""
    over: set[tuple[str, str]]
    """Those that ended in it."""
    cursor: Cursor
    last_at: float
    """When the last of what was read happened; 0.0: nothing was."""
    is_all: bool


def waiting(journal: Journal) -> dict[str, Item]:
    """Return by key all that is open and may need a person."""
    items = [
        item
        for key, value in journal.states(_OPEN).items()
        for item in _waiting_at(key.removeprefix(_OPEN), _read(value))
    ]
    return {item.key: item for item in items}


def still_waits(journal: Journal, item: Item) -> bool:
    """Whether an item of `waiting` is still open, as the journal has it this very moment."""
    value = journal.state(_OPEN + item.instance)
    return any(each.key == item.key for each in _waiting_at(item.instance, _read(value)))


def _read(value: object) -> _Open:
    try:
        return _Open.model_validate(value or {})
    except ValidationError:  # of another version, or damaged: the recorder writes it anew
        return _Open()


def _waiting_at(instance: str, open_: _Open) -> Iterable[Item]:
    for id_, ask in open_.asks.items():
        yield Item(
            key=f"{_ASK}{instance}/{id_}",
            event="answer" if ask.is_question else "permission",
            instance=instance,
            at=ask.at,
            title=ask.title,
            about=ask.about,
        )
    if open_.lost is not None and open_.turns:
        title = next(iter(open_.turns.values())) if len(open_.turns) == 1 else ""
        key = f"lost/{instance}/{open_.lost}"
        yield Item(key=key, event="lost", instance=instance, at=open_.lost, title=title)


def ended(
    journal: Journal, cursor: Cursor | None, told_until: float, started: dict[tuple[str, str], float]
) -> DueEnds:
    """Return the next of what ended.

    Args:
        journal: of the server.
        cursor: up to where this was read; None: what is past is nobody's to be told.
        told_until: when the last happened that was read (epoch seconds), for a cursor that is none any more.
        started: since when turns run that began before.
    """
    if cursor is None:
        return DueEnds([], {}, set(), journal.cursor(), 0.0, is_all=True)
    try:
        entries, seen = journal.after(cursor, _BATCH, _LOOKED_AT)
        is_all = len(entries) < _BATCH
    except CursorError:
        # Another journal, or one that has forgotten: what it has that is newer than what was told.
        seen, is_all = journal.cursor(), True
        entries = [entry for entry in journal.latest(_BATCH, _LOOKED_AT) if entry.at > told_until]
    running = dict(started)
    items: list[Item] = []
    begun: dict[tuple[str, str], float] = {}
    over: set[tuple[str, str]] = set()
    for entry in entries:
        turn = (entry.instance, entry.session)
        if entry.kind == TURN_STARTED:
            begun[turn] = running[turn] = entry.at
            over.discard(turn)
            continue
        items += _end_of(entry, seen.epoch, running.get(turn))
        if entry.kind in _TURNS:
            over.add(turn)
            begun.pop(turn, None)
            running.pop(turn, None)
    return DueEnds(items, begun, over, seen, entries[-1].at if entries else 0.0, is_all)


def _end_of(entry: Entry, epoch: str, since: float | None) -> Iterable[Item]:
    if entry.kind in _TURNS and MESSAGE in entry.data:
        return  # another entry tells of the message's end
    is_turn = entry.kind == TURN_ENDED and since is not None
    yield Item(
        key=f"end/{epoch}.{entry.seq}",
        event=_ENDS[entry.kind],
        instance=entry.instance,
        at=entry.at,
        title=str(entry.data.get("title", "")),
        seconds=entry.at - since if is_turn and since is not None else None,
    )


def is_wanted(rules: NoticeRules, item: Item) -> bool:
    """Whether a person with these rules is to be told."""
    is_short = item.event == "done" and item.seconds is not None and item.seconds < rules.done_after_seconds
    return rules.wants(item.event, item.instance) and not is_short


def due(journal: Journal, rules: NoticeRules, now: float) -> list[Item]:
    """Return what waits that a person with these rules must be told at `now` (epoch seconds), the oldest first."""
    if rules.quiet_until(now) is not None:
        return []
    return sorted((item for item in waiting(journal).values() if is_wanted(rules, item)), key=lambda item: item.at)
