"""What needs a person over all instances, and what ended: what every face of the fleet shows first.

Of a machine that is connected counts what it says now: an ask that it left over from an ended turn needs nobody.
Of one that is away counts what the journal has as open.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from opencode_fleet.errors import InstanceError
from opencode_fleet.model import Permission
from opencode_fleet.open_work import Open, OpenWork
from opencode_journal.entries import ASK_OPENED, INSTANCE_LOST, TURN_ENDED, TURN_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask
    from opencode_journal.cursor import Cursor
    from opencode_journal.entries import Entry
    from opencode_journal.journal import Journal

    Only = Callable[[str], bool]

ENDS: Final = frozenset({TURN_ENDED, TURN_FAILED, INSTANCE_LOST})
NEWS: Final = ENDS | {ASK_OPENED}
"""The entries that a person is told of."""
SEEN_WITHIN: Final = 3.0
"""Seconds in which an agent must say whether an ask that another copy of the server recorded still waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An ask that needs a person. Strings are not cleaned."""

    instance: str
    id: str
    root: str
    """The session that it is about: a subagent's stands under its root."""
    title: str
    since: float
    """Epoch seconds."""
    is_question: bool
    about: str = ""
    """What for, as recorded; empty where `ask` has it."""
    place: Instance | None = None
    """Where it can be settled; None while the machine is away."""
    ask: Ask | None = None
    """The ask itself; None while the machine is away."""


class News(NamedTuple):
    """What is new after a cursor."""

    asks: list[Waiting]
    ends: list[Entry]
    cursor: Cursor
    """Up to where this has told all."""
    is_all: bool
    """Whether nothing more followed."""


class Inbox:
    """Answers from memory and the journal; only what another copy saw first is asked for."""

    def __init__(self, fleet: Fleet, journal: Journal) -> None:
        self._fleet = fleet
        self._journal = journal
        self._open = OpenWork(journal)

    async def waiting(self) -> list[Waiting]:
        """Return all that needs a person, oldest first."""
        recorded = {name: self._open.at(name) for name in self._open.names()}
        connected = await self._caught_up({name for name, open_ in recorded.items() if open_.asks})
        recorded = {name: self._open.at(name) for name in recorded}
        found: list[Waiting] = []
        for name, instance in connected.items():
            if asks := instance.state.pending_asks():
                found += _live(instance, asks, self._open.at(name))
        for name, open_ in recorded.items():
            if name not in connected:
                found += _recorded(name, open_)
        return sorted(found, key=lambda waiting: waiting.since)

    async def news(self, cursor: Cursor, limit: int, only: Only | None = None) -> News:
        """Return at most `limit` of what came after `cursor`, of the instances that `only` takes.

        An ask that is settled by now is none.

        Raises:
            CursorError: what came after it is not known; the message says what to do.
        """
        while True:
            entries, cursor = self._journal.after(cursor, limit, NEWS)
            ours = [entry for entry in entries if only is None or only(entry.instance)]
            connected = await self._caught_up({entry.instance for entry in ours if entry.kind == ASK_OPENED})
            told = [
                waiting
                for entry in ours
                if entry.kind == ASK_OPENED
                and (waiting := self._still_waiting(entry, connected.get(entry.instance))) is not None
            ]
            ends = [entry for entry in ours if entry.kind != ASK_OPENED]
            is_all = len(entries) < limit
            if told or ends or is_all:
                return News(told, ends, cursor, is_all)

    def ends(self, cursor: Cursor, limit: int) -> News:
        """Return at most `limit` of what ended after `cursor`, and no asks. Raises `CursorError`, see `news`."""
        entries, cursor = self._journal.after(cursor, limit, ENDS)
        return News([], entries, cursor, len(entries) < limit)

    def latest_ends(self, limit: int) -> list[Entry]:
        """Return the last of what ended, oldest first."""
        return self._journal.latest(limit, ENDS)

    def _connected(self) -> dict[str, Instance]:
        return {instance.name: instance for instance in self._fleet.all_instances() if instance.connected.is_set()}

    def _still_waiting(self, entry: Entry, instance: Instance | None) -> Waiting | None:
        open_ = self._open.at(entry.instance)
        if instance is None:
            found = _recorded(entry.instance, open_)
        else:
            found = _live(instance, instance.state.pending_asks(), open_)
        return next((waiting for waiting in found if waiting.id == entry.ask), None)

    async def _caught_up(self, names: set[str]) -> dict[str, Instance]:
        """Return the connected instances, once they were asked for what only another copy of the server has seen.

        One that does not answer is left out: of it counts what the other copy recorded.
        """
        connected = self._connected()
        behind = [connected[name] for name in names if name in connected and self._is_behind(connected[name])]
        if not behind:
            return connected
        answered = await asyncio.gather(*map(_is_refreshed, behind))
        silent = {instance.name for instance, has_answered in zip(behind, answered, strict=True) if not has_answered}
        return {name: instance for name, instance in self._connected().items() if name not in silent}

    def _is_behind(self, instance: Instance) -> bool:
        known = {ask.id for ask in instance.state.pending_asks()} | instance.state.settled_how.keys()
        return not self._open.at(instance.name).asks.keys() <= known


def _live(instance: Instance, asks: list[Ask], open_: Open) -> list[Waiting]:
    found = []
    for ask in asks:
        root = instance.state.root_of(ask.session_id)
        session = instance.state.sessions.get(root)
        recorded = open_.asks.get(ask.id)
        waiting = Waiting(
            instance=instance.name,
            id=ask.id,
            root=root,
            title=session.title if session else "",
            since=recorded.at if recorded else time.time(),
            is_question=not isinstance(ask, Permission),
            place=instance,
            ask=ask,
        )
        found.append(waiting)
    return found


def _recorded(name: str, open_: Open) -> list[Waiting]:
    return [
        Waiting(
            instance=name,
            id=ask_id,
            root=ask.root,
            title=ask.title,
            since=ask.at,
            is_question=ask.is_question,
            about=ask.about,
        )
        for ask_id, ask in open_.asks.items()
    ]


async def _is_refreshed(instance: Instance) -> bool:
    try:
        async with asyncio.timeout(SEEN_WITHIN):
            await instance.refresh()
    except (InstanceError, TimeoutError):
        return False
    return True
