"""Writes into the journal what happens on the fleet, once: turns, asks, machines that go away and come back.

It compares what an instance shows with what the journal has as open there, whenever the instance tells something.
So what happened while a line or the server was away is written when it is seen, and nothing is written twice.
Of several copies of the server only the leader writes; the others look at what it wrote.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opencode_common.bucket import Bucket
from opencode_common.text import bare, one_line
from opencode_fleet.agent import Capability
from opencode_fleet.events import AskOpened, AskSettled, SessionGone, StatusChanged, TurnFailed
from opencode_fleet.model import Permission
from opencode_fleet.open_work import Open, OpenAsk, OpenWork
from opencode_journal.entries import (
    ASK_OPENED,
    ASK_SETTLED,
    INSTANCE_BACK,
    INSTANCE_LOST,
    TURN_ENDED,
    TURN_FAILED,
    TURN_STARTED,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from opencode_fleet.events import Event
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask
    from opencode_journal.journal import Journal
    from opencode_journal.leader import Leader

log = logging.getLogger(__name__)

LOST_AFTER: Final = 30.0
"""Seconds without a connection after which a machine counts as away: a shorter break is no news."""
MAX_OPEN: Final = 100
"""Turns, and asks, of one instance that are recorded at a time; of more one hears while they are open."""
CHANGES_AT_ONCE: Final = 1_000
CHANGES_PER_SECOND: Final = 5.0
"""Of one machine. What comes faster is written later, and what began and ended meanwhile never."""
MAX_MACHINES: Final = 1_000
MAX_PROBLEMS: Final = 1_000
_TEND_SECONDS: Final = 1.0
_HOW: Final = 20
_TITLE: Final = 80
_ABOUT: Final = 200
_PROBLEM: Final = 500
_WHY: Final = 300
_DECIDED: Final = "decided/"


class _Change(NamedTuple):
    kind: str
    session: str = ""
    ask: str = ""
    data: dict[str, Any] = {}  # noqa: RUF012 - never changed


class Recorder:
    """Records a fleet while `running`. It must hear all events, so it is begun before the fleet."""

    def __init__(self, fleet: Fleet, journal: Journal, leader: Leader, *, lost_after: float = LOST_AFTER) -> None:
        """`lost_after`: seconds."""
        self._fleet = fleet
        self._journal = journal
        self._leader = leader
        self._lost_after = lost_after
        self._open = OpenWork(journal)
        self._problems: OrderedDict[tuple[str, str], str] = OrderedDict()
        """Why turns failed that have not ended yet, by instance and session."""
        self._allowances: OrderedDict[str, Bucket] = OrderedDict()
        self._due: set[Instance] = set()
        """Those of which something is to be written that was too much at its time."""
        self._away: dict[str, float] = {}
        """Since when (monotonic seconds) instances are not connected."""
        self._told_away: set[str] = set()
        self._led = ""
        """The journal's epoch in which this copy led when it looked last."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Record while the block runs."""
        end = self._fleet.subscribe(self._hear)
        task = asyncio.create_task(self._tend(), name="recorder")
        try:
            yield
        finally:
            end()
            task.cancel()
            await asyncio.wait([task])

    def deciding(self, instance: Instance, ask_id: str, decision: str | None) -> None:
        """Note, before an ask is settled from here, how: whichever copy leads writes that it was we.

        None: it was not after all.
        """
        self._journal.set_state(_decision_key(instance.name, ask_id), decision)

    @property
    def _leads(self) -> bool:
        """Whether this copy writes: nobody else can where the journal is in memory."""
        return self._leader.is_leader or not self._journal.is_kept

    def _hear(self, instance: Instance, event: Event | None) -> None:
        match event:
            case TurnFailed(session_id, problem):
                self._fail(instance, session_id, one_line(problem, _PROBLEM))
            case None | StatusChanged() | SessionGone() | AskOpened() | AskSettled():
                self._look(instance, was_told=event is not None)
                if isinstance(event, StatusChanged) and event.status is None and instance not in self._due:
                    self._problems.pop((instance.name, event.session_id), None)
            case _:
                pass

    def _fail(self, instance: Instance, session_id: str, problem: str) -> None:
        root = instance.state.root_of(session_id)
        if root != session_id:
            return  # a subagent's is its root's to deal with
        if instance.state.is_busy(root):
            self._problems[instance.name, root] = problem
            while len(self._problems) > MAX_PROBLEMS:
                self._problems.popitem(last=False)
        elif self._leads and self._allowance(instance).take():
            # It never began to run, so nothing else tells of it.
            data = {**_titled(_title(instance, root)), "problem": problem}
            self._journal.append(TURN_FAILED, instance.name, root, data=data)

    # -- comparing -----------------------------------------------------------------------------------------------

    def _look(self, instance: Instance, *, was_told: bool) -> None:
        """Write what is another than the journal knows. `was_told`: by an event, not found in a list."""
        if not self._leads:
            return
        if instance.closed_since is not None:
            compare = self._closed
        elif instance.connected.is_set():
            self._is_there(instance.name)
            compare = self._compared
        else:
            return
        now = self._open.at(instance.name)
        changes = compare(instance, now, was_told=was_told)
        if not changes:
            self._due.discard(instance)
        elif self._allowance(instance).take():
            self._due.discard(instance)
            self._write(instance.name, now, changes)
        else:
            self._due.add(instance)

    def _compared(self, instance: Instance, open_: Open, *, was_told: bool) -> list[_Change]:
        """Return the changes since `open_`, which is brought up to date."""
        changes = [_Change(INSTANCE_BACK)] if open_.lost is not None else []
        open_.lost = None
        changes += self._asks(instance, open_)
        running = instance.state.busy_roots()
        for root in [root for root in open_.turns if root not in running]:
            title = open_.turns.pop(root)
            if instance.state.root_of(root) == root:  # else it has turned out to be a subagent's
                changes.append(self._end(instance, root, title, was_told=was_told))
        for root in running:
            if root not in open_.turns and len(open_.turns) < MAX_OPEN:
                title = open_.turns[root] = _title(instance, root)
                changes.append(_Change(TURN_STARTED, root, data=_titled(title)))
        changes += _opened(instance, open_)
        return changes

    def _end(self, instance: Instance, root: str, title: str, *, was_told: bool) -> _Change:
        problem = self._problems.get((instance.name, root), "")
        # The first turn gets its title while it runs.
        data = _titled(_title(instance, root) or title)
        if problem:
            return _Change(TURN_FAILED, root, data={**data, "problem": problem})
        return _Change(TURN_ENDED, root, data=data if was_told else {**data, "unseen": True})

    def _asks(self, instance: Instance, open_: Open) -> Iterator[_Change]:
        waiting = {ask.id for ask in instance.state.pending_asks()}
        for ask_id in [ask_id for ask_id in open_.asks if ask_id not in waiting]:
            ask = open_.asks.pop(ask_id)
            how = one_line(instance.state.settled_how.get(ask_id, ""), _HOW)
            decision = self._journal.state(_decision_key(instance.name, ask_id))
            data = {**_titled(ask.title), "how": how or decision or "with its turn", "by_us": decision is not None}
            yield _Change(ASK_SETTLED, ask.root, ask_id, data)

    def _closed(self, instance: Instance, open_: Open, *, was_told: bool) -> list[_Change]:
        """Return what ended because somebody closed the agent in good order."""
        del was_told
        if instance.can(Capability.OUTLIVES):
            return []
        data = {"problem": "OpenCode was closed there"}
        changes = [_Change(ASK_SETTLED, ask.root, ask_id, {"how": "closed"}) for ask_id, ask in open_.asks.items()]
        changes += [
            _Change(TURN_FAILED, root, data={**_titled(title), **data}) for root, title in open_.turns.items()
        ]
        open_.turns, open_.asks, open_.lost = {}, {}, None
        return changes

    # -- writing -------------------------------------------------------------------------------------------------

    def _allowance(self, instance: Instance) -> Bucket:
        machine = instance.endpoint.client or instance.endpoint.name
        bucket = self._allowances.setdefault(machine, Bucket(CHANGES_AT_ONCE, CHANGES_PER_SECOND))
        self._allowances.move_to_end(machine)
        while len(self._allowances) > MAX_MACHINES:
            self._allowances.popitem(last=False)
        return bucket

    def _write(self, name: str, now: Open, changes: list[_Change]) -> None:
        def write() -> None:
            for change in changes:
                self._journal.append(change.kind, name, change.session, change.ask, change.data)
                if change.kind == ASK_SETTLED:
                    self._journal.set_state(_decision_key(name, change.ask), None)
            self._open.set(name, now)

        self._journal.together(write)
        for change in changes:
            if change.kind in {TURN_ENDED, TURN_FAILED}:
                self._problems.pop((name, change.session), None)

    # -- from time to time ---------------------------------------------------------------------------------------

    async def _tend(self) -> None:
        while True:
            try:
                self._tend_once()
            except Exception:
                log.exception("recording failed")
            await asyncio.sleep(_TEND_SECONDS)

    def _tend_once(self) -> None:
        if not self._leads:
            self._led = ""
            return
        if self._led != self._journal.epoch:
            # What happened before this copy led, or while the journal was another one.
            self._led = self._journal.epoch
            self._told_away.clear()
            self._due.update(self._fleet.all_instances())
        for instance in tuple(self._due):
            self._look(instance, was_told=False)
        self._note_absences()

    def _note_absences(self) -> None:
        present = {instance.name: instance for instance in self._fleet.all_instances()}
        now = time.monotonic()
        names = present.keys() | set(self._open.names())
        self._away = {name: since for name, since in self._away.items() if name in names}
        self._told_away &= names
        for name in names:
            instance = present.get(name)
            if instance is not None and instance.connected.is_set():
                self._is_there(name)
            elif now - self._away.setdefault(name, now) >= self._lost_after and name not in self._told_away:
                self._told_away.add(name)
                self._lose(name, instance)

    def _is_there(self, name: str) -> None:
        self._away.pop(name, None)
        self._told_away.discard(name)

    def _lose(self, name: str, instance: Instance | None) -> None:
        now = self._open.at(name)
        was_there = bool(instance.agent_version) if instance is not None else bool(now)
        if not was_there or now.lost is not None or (instance is not None and instance.closed_since is not None):
            return
        now.lost = time.time()
        why = instance.trouble if instance is not None else "it is not registered"
        data = {"why": one_line(bare(why), _WHY), "turns": len(now.turns), "asks": len(now.asks)}
        self._write(name, now, [_Change(INSTANCE_LOST, data=data)])


def _opened(instance: Instance, open_: Open) -> Iterator[_Change]:
    for ask in instance.state.pending_asks():
        if ask.id in open_.asks or len(open_.asks) >= MAX_OPEN:
            continue
        root = instance.state.root_of(ask.session_id)
        is_question = not isinstance(ask, Permission)
        found = open_.asks[ask.id] = OpenAsk(time.time(), root, is_question, _about(ask), _title(instance, root))
        data = {**_titled(found.title), "question": is_question, "about": found.about}
        yield _Change(ASK_OPENED, root, ask.id, data)


def _about(ask: Ask) -> str:
    if isinstance(ask, Permission):
        what = dict(ask.details).get("command") or ", ".join(ask.patterns[:3])
        return one_line(f"{ask.action} {what}", _ABOUT)
    return one_line(ask.items[0].question, _ABOUT) if ask.items else ""


def _title(instance: Instance, root: str) -> str:
    return one_line(instance.state.title(root), _TITLE)


def _titled(title: str) -> dict[str, Any]:
    return {"title": title} if title else {}


def _decision_key(name: str, ask_id: str) -> str:
    return f"{_DECIDED}{name}/{ask_id}"
