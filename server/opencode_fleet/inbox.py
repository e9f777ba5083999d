"""What needs a person over all instances, and what ended: what every face of the fleet shows first.

Of a machine that is connected counts what it says now: an ask that it left over from an ended turn needs nobody.
Of one that is away, or does not answer, counts what the journal has as open.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from opencode_fleet.errors import InstanceError
from opencode_fleet.model import Permission
from opencode_fleet.open_work import OpenWork
from opencode_journal.entries import (
    ASK_OPENED,
    INSTANCE_LOST,
    MESSAGE,
    MESSAGE_ANSWERED,
    MESSAGE_EXPIRED,
    MESSAGE_FAILED,
    TURN_ENDED,
    TURN_FAILED,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask
    from opencode_fleet.open_work import Open, OpenAsk
    from opencode_journal.cursor import Cursor
    from opencode_journal.entries import Entry
    from opencode_journal.journal import Journal

    Only = Callable[[str], bool]

_TURNS: Final = frozenset({TURN_ENDED, TURN_FAILED})
ENDS: Final = _TURNS | {INSTANCE_LOST, MESSAGE_ANSWERED, MESSAGE_FAILED, MESSAGE_EXPIRED}
NEWS: Final = ENDS | {ASK_OPENED}
"""The entries that a person is told of."""
BATCH: Final = 500
"""Entries that are looked through in one go: all else waits for that long."""
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
    """The ask itself; None while the machine is away, or does not answer."""
    machine: str = ""
    """What the machine is called; where it is not known any more, the instance."""


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
        silent: set[str] = set()
        await self._catch_up(self._open.names(), silent)
        live = {name for name, instance in self._connected().items() if instance.state.pending_asks()}
        return sorted(self._waiting_at(live.union(self._open.names()), silent), key=lambda waiting: waiting.since)

    async def news(self, cursor: Cursor, limit: int, only: Only | None = None, *, until: float = math.inf) -> News:
        """Return at most `limit` of what came after `cursor`, of the instances that `only` takes.

        An ask that is settled by now is none. A long past is looked through up to `until` (monotonic seconds):
        there may be no news up to where that came, and more behind it.

        Raises:
            CursorError: what came after it is not known; the message says what to do.
        """
        silent: set[str] = set()
        while True:
            entries, seen = self._journal.after(cursor, BATCH, NEWS)
            ours = [entry for entry in entries if _is_news(entry) and (only is None or only(entry.instance))]
            asking = {entry.instance for entry in ours if entry.kind == ASK_OPENED}
            await self._catch_up(asking, silent)
            asks = {(waiting.instance, waiting.id): waiting for waiting in self._waiting_at(asking, silent)}
            new = [entry for entry in ours if entry.kind != ASK_OPENED or (entry.instance, entry.ask) in asks]
            is_all = len(entries) < BATCH and len(new) <= limit
            if len(new) > limit:
                new = new[:limit]
                seen = cursor._replace(seq=new[-1].seq)
            if new or is_all or time.monotonic() >= until:
                told = [asks[entry.instance, entry.ask] for entry in new if entry.kind == ASK_OPENED]
                return News(told, [entry for entry in new if entry.kind != ASK_OPENED], seen, is_all)
            cursor = seen
            await asyncio.sleep(0)

    def ends(self, cursor: Cursor, limit: int) -> News:
        """Return at most `limit` of what ended after `cursor`, and no asks. Raises `CursorError`, see `news`."""
        entries, cursor = self._journal.after(cursor, limit, ENDS)
        return News([], [entry for entry in entries if _is_news(entry)], cursor, len(entries) < limit)

    def latest_ends(self, limit: int) -> list[Entry]:
        """Return the last of what ended, oldest first."""
        # Of each message that has ended, the turn may have an entry of its own.
        return [entry for entry in self._journal.latest(2 * limit, ENDS) if _is_news(entry)][-limit:]

    def _connected(self) -> dict[str, Instance]:
        return {instance.name: instance for instance in self._fleet.all_instances() if instance.connected.is_set()}

    async def _catch_up(self, names: Iterable[str], silent: set[str]) -> None:
        """Ask the connected instances for what only another copy of the server has seen.

        `silent`: those that are not asked any more; those that do not answer now are added.
        """
        connected = self._connected()
        behind: dict[str, list[Instance]] = defaultdict(list)
        for name in names:
            if name in connected and name not in silent and self._is_behind(connected[name]):
                behind[connected[name].endpoint.name].append(connected[name])
        # One answer of an agent tells of all its directories.
        answered = await asyncio.gather(*(_is_refreshed(group[0]) for group in behind.values()))
        for group, has_answered in zip(behind.values(), answered, strict=True):
            if not has_answered:
                silent.update(instance.name for instance in group)

    def _is_behind(self, instance: Instance) -> bool:
        return not self._open.at(instance.name).asks.keys() <= _known(instance)

    def _waiting_at(self, names: Iterable[str], silent: set[str]) -> list[Waiting]:
        """Return what waits at these instances; of the `silent` also what only another copy has seen."""
        instances = {instance.name: instance for instance in self._fleet.all_instances()}
        found = []
        for name in names:
            open_, instance = self._open.at(name), instances.get(name)
            if instance is None or not instance.connected.is_set():
                found += _recorded(name, instance, open_.asks)
                continue
            found += _live(instance, open_)
            if name in silent:
                known = _known(instance)
                unseen = {ask_id: ask for ask_id, ask in open_.asks.items() if ask_id not in known}
                found += _recorded(name, instance, unseen)
        return found


def _is_news(entry: Entry) -> bool:
    """Whether it tells of something that no other entry does: a message that was kept tells of its turn's end."""
    return entry.kind not in _TURNS or MESSAGE not in entry.data


def _known(instance: Instance) -> set[str]:
    """Return the ids of the asks that this copy of the server has seen."""
    return {ask.id for ask in instance.state.pending_asks()} | instance.state.settled_how.keys()


def _live(instance: Instance, open_: Open) -> list[Waiting]:
    found = []
    for ask in instance.state.pending_asks():
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
            machine=instance.endpoint.machine,
        )
        found.append(waiting)
    return found


def _recorded(name: str, instance: Instance | None, asks: Mapping[str, OpenAsk]) -> list[Waiting]:
    return [
        Waiting(
            instance=name,
            id=ask_id,
            root=ask.root,
            title=ask.title,
            since=ask.at,
            is_question=ask.is_question,
            about=ask.about,
            place=instance if instance is not None and instance.connected.is_set() else None,
            machine=instance.endpoint.machine if instance is not None else name,
        )
        for ask_id, ask in asks.items()
    ]


async def _is_refreshed(instance: Instance) -> bool:
    try:
        async with asyncio.timeout(SEEN_WITHIN):
            await instance.refresh()
    except (InstanceError, TimeoutError):
        return False
    return True
