"""Tells the ends of turns that were begun from here and fell into a break: who sent something hears how it ended.

A turn that was seen to run is told by the recorder. One that began and ended while the line or the server was away is
found here: noted as begun, and neither running nor known to the journal. The agent's records say how it ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from opencode_common.text import bare, one_line
from opencode_fleet.differences import title_of, titled
from opencode_fleet.errors import InstanceError, NotFound
from opencode_fleet.open_work import OpenWork
from opencode_fleet.own_turns import OwnTurns
from opencode_journal.entries import STOPPED, TURN_ENDED, TURN_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import TurnRecord
    from opencode_fleet.own_turns import Begun
    from opencode_journal.journal import Journal

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
SETTLED_AFTER: Final = 5.0
"""Seconds after its post in which the events of a turn may still come; and between two looks at its records."""
UNFINISHED_AFTER: Final = 20.0
"""Seconds that a session must be idle until a turn counts as over whose record has no end."""
NEVER_AFTER: Final = 600.0
"""Seconds after which what has not arrived never does."""
_ANSWERED_WITHIN: Final = 3.0
_PROBLEM: Final = 500


class Unheard:
    """Looks for such turns while `tend` runs. `leads`: whether this copy of the server writes."""

    def __init__(self, fleet: Fleet, journal: Journal, leads: Callable[[], bool]) -> None:
        self._fleet = fleet
        self._journal = journal
        self._leads = leads
        self._turns = OwnTurns(journal)
        self._open = OpenWork(journal)
        self._looked: dict[tuple[str, str], float] = {}
        """When the records of prompts were looked at last (monotonic seconds), by instance and prompt."""
        self._idle: dict[tuple[str, str], float] = {}
        """Since when they are found to be over and without an end."""

    async def tend(self) -> None:
        """Look, for ever."""
        while True:
            try:
                if self._leads():
                    await self._look()
            except Exception:
                log.exception("turns whose ends were missed cannot be looked for")
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        untold = self._turns.untold()
        keys = {(begun.instance, begun.prompt) for begun in untold}
        self._looked = {key: at for key, at in self._looked.items() if key in keys}
        self._idle = {key: at for key, at in self._idle.items() if key in keys}
        there = {each.name: each for each in self._fleet.all_instances() if each.connected.is_set()}
        waiting: set[tuple[str, str]] = set()
        newest = {(begun.instance, begun.session): begun for begun in untold}
        for begun in untold:
            instance = there.get(begun.instance)
            place = (begun.instance, begun.session)
            if instance is None or place in waiting:
                continue
            # Those that came after it are told after it.
            waiting.add(place)
            if not self._is_due(instance, begun):
                continue
            self._looked[begun.instance, begun.prompt] = time.monotonic()
            try:
                async with asyncio.timeout(_ANSWERED_WITHIN):
                    await instance.refresh()
                    record = await instance.agent.turn(begun.session, begun.prompt)
            except NotFound:
                self._turns.drop(*begun[:3])  # with its session, which somebody removed
                waiting.discard(place)
            except (InstanceError, TimeoutError):
                del there[begun.instance]  # nobody waits for it again in this round
            else:
                if self._take(instance, begun, record, is_newest=newest[place] == begun):
                    waiting.discard(place)

    def _is_due(self, instance: Instance, begun: Begun) -> bool:
        looked = self._looked.get((begun.instance, begun.prompt))
        return (
            abs(time.time() - begun.at) >= SETTLED_AFTER
            and (looked is None or time.monotonic() - looked >= SETTLED_AFTER)
            and self._is_over(instance, begun)
        )

    def _is_over(self, instance: Instance, begun: Begun) -> bool:
        """Whether nothing runs there, and the recorder has nothing to tell of it either."""
        return not (
            instance.state.family_busy(begun.session)
            or begun.session in instance.posting
            or begun.session in self._open.at(begun.instance).turns
        )

    def _take(self, instance: Instance, begun: Begun, record: TurnRecord, *, is_newest: bool) -> bool:
        """Tell what a record says; return whether that is its turn's last word, or there was no turn.

        One that another followed gets no end any more: nothing else was sent while it ran.
        """
        key = (begun.instance, begun.prompt)
        if not self._is_over(instance, begun) or record.is_queued:
            self._idle.pop(key, None)
            return False
        if not record.is_stored:
            if abs(time.time() - begun.at) >= NEVER_AFTER:
                self._turns.drop(*begun[:3])
            return True
        told = _told(record)
        idle = time.monotonic() - self._idle.setdefault(key, time.monotonic())
        if told is None and (idle >= UNFINISHED_AFTER or not is_newest):
            told = TURN_ENDED, {"unseen": True}
        if told is not None:
            self._tell(instance, begun, *told)
        return told is not None

    def _tell(self, instance: Instance, begun: Begun, kind: str, data: dict[str, Any]) -> None:
        def write() -> None:
            if self._turns.drop(*begun[:3]):
                said = {**titled(title_of(instance, begun.session)), **data}
                self._journal.append(kind, begun.instance, begun.session, data=said)

        self._journal.together(write)


def _told(record: TurnRecord) -> tuple[str, dict[str, Any]] | None:
    """Return which entry the records of a turn make; None as long as they have no end of it."""
    last = record.answers[-1] if record.answers else None
    # Agents have it among the errors of an answer, too.
    if record.is_interrupted or (last is not None and last.is_stopped):
        return TURN_ENDED, {STOPPED: True}
    problem = record.problem or (last.error if last is not None else "")
    if problem:
        return TURN_FAILED, {"problem": one_line(bare(problem), _PROBLEM)}
    if last is None or last.completed is None or last.ended == "for-tools":
        return None
    return TURN_ENDED, {}
