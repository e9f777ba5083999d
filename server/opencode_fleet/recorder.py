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
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from opencode_common.bucket import Bucket
from opencode_common.text import bare, one_line
from opencode_fleet.agent import Capability
from opencode_fleet.cuts import Cuts, TurnProblem
from opencode_fleet.decisions import Decisions, told
from opencode_fleet.differences import MAX_OPEN, Change, closed, gone, is_id, opened, title_of, titled
from opencode_fleet.events import (
    AnswerChanged,
    AskOpened,
    AskSettled,
    SessionGone,
    StatusChanged,
    TurnFailed,
    TurnStopped,
)
from opencode_fleet.open_work import OpenWork
from opencode_fleet.own_turns import OwnTurns
from opencode_fleet.unheard import Unheard
from opencode_journal.entries import (
    ASK_SETTLED,
    INSTANCE_BACK,
    INSTANCE_LOST,
    MESSAGE,
    STOPPED,
    TURN_ENDED,
    TURN_FAILED,
    TURN_STARTED,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Iterator

    from opencode_fleet.events import Event
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.open_work import Open
    from opencode_journal.journal import Journal
    from opencode_journal.leader import Leader

log = logging.getLogger(__name__)

LOST_AFTER: Final = 30.0
"""Seconds without a connection after which a machine counts as away: a shorter break is no news."""
CHANGES_AT_ONCE: Final = 1_000
CHANGES_PER_SECOND: Final = 5.0
"""Of one machine. What comes faster is written later, and what began and ended meanwhile never."""
MAX_MACHINES: Final = 1_000
MAX_FAILING: Final = 1_000
MAX_PROBLEMS: Final = 1_000
_TEND_SECONDS: Final = 1.0
_HOW: Final = 20
_PROBLEM: Final = 500
_WHY: Final = 300


class Recorder:
    """Records a fleet while `running`. It must hear all events, so it is begun before the fleet."""

    def __init__(
        self,
        fleet: Fleet,
        journal: Journal,
        leader: Leader,
        *,
        carried: Callable[[str, str], str] = lambda _instance, _session: "",
        lost_after: float = LOST_AFTER,
    ) -> None:
        """`carried`: see `Outbox.carried`; `lost_after`: seconds."""
        self._fleet = fleet
        self._journal = journal
        self._leader = leader
        self._carried = carried
        self._lost_after = lost_after
        self.decisions = Decisions(journal)
        """What is decided from here: whichever copy leads writes that it was we."""
        self._open = OpenWork(journal)
        self._own = OwnTurns(journal)
        self._cuts = Cuts()
        self._unheard = Unheard(fleet, journal, lambda: self._leads)
        self._problems: OrderedDict[tuple[str, str], TurnProblem] = OrderedDict()
        """Why turns failed whose ends this copy has not written, by instance and session."""
        self._allowances: OrderedDict[str, Bucket] = OrderedDict()
        self._due: dict[Instance, int] = {}
        """Those of which something is to be written that was too much at its time, and how many entries that is."""
        self._running: WeakKeyDictionary[Instance, frozenset[str]] = WeakKeyDictionary()
        """The sessions that ran at the last look after which nothing was left to write."""
        self._failing: set[str] = set()
        """Names of those that could not be recorded when they were looked at last."""
        self._away: dict[str, float] = {}
        """Since when (monotonic seconds) instances are not connected."""
        self._told_away: set[str] = set()
        self._led = ""
        """The journal's epoch in which this copy led when it looked last."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Record while the block runs."""
        end = self._fleet.subscribe(self._hear)
        tasks = [
            asyncio.create_task(self._tend(), name="recorder"),
            asyncio.create_task(self._unheard.tend(), name="unheard"),
        ]
        try:
            yield
        finally:
            end()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    @property
    def _leads(self) -> bool:
        """Whether this copy writes: nobody else can where the journal is in memory."""
        return self._leader.is_leader or not self._journal.is_kept

    def _hear(self, instance: Instance, event: Event | None) -> None:
        match event:
            case TurnFailed(session_id, problem, is_stopped):
                self._fail(instance, session_id, TurnProblem(one_line(problem, _PROBLEM), is_stopped=is_stopped))
            case TurnStopped(session_id):
                self._fail(instance, session_id, TurnProblem("", is_stopped=True))
            case AnswerChanged():
                self._cuts.hear(instance.name, event)
            case None | StatusChanged() | SessionGone() | AskOpened() | AskSettled():
                if not self._is_known(instance, event):
                    self._look(instance, was_told=event is not None)
                if isinstance(event, StatusChanged):
                    self._note_status(instance, event)
            case _:
                pass

    def _is_known(self, instance: Instance, event: Event | None) -> bool:
        """Whether all that an event tells is that a session runs which ran at the last look: most tell no more."""
        return (
            isinstance(event, StatusChanged)
            and event.status is not None
            and event.session_id in self._running.get(instance, ())
        )

    def _fail(self, instance: Instance, session_id: str, problem: TurnProblem) -> None:
        root = instance.state.root_of(session_id)
        if root != session_id:
            return  # a subagent's is its root's to deal with
        is_held = self._cuts.is_held(instance.name, root)
        if is_held or instance.state.is_busy(root):
            self._problems[instance.name, root] = problem
            while len(self._problems) > MAX_PROBLEMS:
                self._problems.popitem(last=False)
            if is_held:
                self._look(instance, was_told=True)
        elif problem.is_stopped:
            pass  # its end is told already
        elif self._leads and is_id(root) and self._allowance(_payer(instance)).take():
            # It never began to run, so nothing else tells of it.
            data = {**titled(title_of(instance, root)), **self._message(instance, root), "problem": problem.why}
            self._write(instance.name, self._open.at(instance.name), [Change(TURN_FAILED, root, data=data)])

    def _note_status(self, instance: Instance, event: StatusChanged) -> None:
        key = (instance.name, event.session_id)
        known = self._problems.get(key)
        if known is None:
            return
        if event.status is not None:
            if known.is_over:
                del self._problems[key]
        elif self._leads and instance not in self._due:
            del self._problems[key]
        else:
            # Whether that was written will be seen once this copy leads, or may write.
            self._problems[key] = known._replace(is_over=True)

    # -- comparing -----------------------------------------------------------------------------------------------

    def _look(self, instance: Instance, *, was_told: bool) -> None:
        """Write what is another than the journal knows. `was_told`: by an event, not found in a list.

        What fails here is this instance's, and no other is to suffer from it.
        """
        self._running.pop(instance, None)
        if not self._leads:
            return
        needed = self._due.get(instance)
        if needed and instance.closed_since is None and not self._allowance(_payer(instance)).holds(needed):
            return
        try:
            self._look_at(instance, was_told=was_told)
        except Exception:
            self._due.pop(instance, None)
            if instance.name not in self._failing and len(self._failing) < MAX_FAILING:
                self._failing.add(instance.name)
                log.exception("what happens on %s cannot be recorded", instance.quoted)
        else:
            self._failing.discard(instance.name)
            if self._cuts.holds_any(instance.name):
                self._due.setdefault(instance, 0)
            if instance not in self._due:
                self._running[instance] = frozenset(instance.state.statuses)

    def _look_at(self, instance: Instance, *, was_told: bool) -> None:
        if instance.closed_since is not None and not self._is_listed(instance):
            self._drop(instance)
            return
        now = self._open.at(instance.name)
        if instance.closed_since is not None:
            # What outlives being closed goes on, and is told of by whoever shows it next.
            changes = [] if instance.can(Capability.OUTLIVES) else closed(now)
        elif instance.connected.is_set():
            self._is_there(instance.name)
            now.machine, now.directory = instance.endpoint.client or "", instance.state.directory
            changes = self._compared(instance, now, was_told=was_told)
        else:
            # Once it is connected it is looked at anew.
            self._due.pop(instance, None)
            return
        cost = self._own.cost(instance.name, changes)
        if not changes:
            self._due.pop(instance, None)
        elif self._open.has_room(instance.name, now) and self._allowance(_payer(instance)).take(cost):
            self._due.pop(instance, None)
            self._write(instance.name, now, changes)
        else:
            self._due[instance] = cost

    def _is_listed(self, instance: Instance) -> bool:
        return any(known is instance for known in self._fleet.all_instances())

    def _drop(self, instance: Instance) -> None:
        """Forget what is open at an instance that the fleet has dropped, as nobody looks at it again.

        Entries tell of that as far as its machine's allowance goes.
        """
        self._due.pop(instance, None)
        now = self._open.at(instance.name)
        if not now or any(known.name == instance.name for known in self._fleet.all_instances()):
            return  # another has the name now, and is compared with what was open
        changes = gone(now) if instance.can(Capability.OUTLIVES) else closed(now)
        is_told = self._allowance(_payer(instance)).take(self._own.cost(instance.name, changes))
        self._write(instance.name, now, changes if is_told else [])

    def _compared(self, instance: Instance, open_: Open, *, was_told: bool) -> list[Change]:
        """Return the changes since `open_`, which is brought up to date."""
        changes = [Change(INSTANCE_BACK)] if open_.lost is not None else []
        open_.lost = None
        waiting = {ask.id: ask for ask in instance.state.pending_asks()}
        running = dict.fromkeys(instance.state.busy_roots())
        changes += self._settled(instance, open_, waiting)
        for root in tuple(open_.turns):
            is_held = self._cuts.is_held(instance.name, root)
            if root in running and not is_held:
                continue
            is_open = (was_told or is_held) and (instance.name, root) not in self._problems
            if root not in running and is_open and self._cuts.hold(instance.name, root):
                continue  # a word on why it ended is still to come
            self._cuts.over(instance.name, root)
            title = open_.turns.pop(root)
            if instance.state.root_of(root) == root:  # else it has turned out to be a subagent's
                changes.append(self._end(instance, root, title, was_told=was_told or is_held))
        for root in running:
            if len(open_.turns) >= MAX_OPEN:
                break
            if root not in open_.turns and is_id(root):
                title = open_.turns[root] = title_of(instance, root)
                changes.append(Change(TURN_STARTED, root, data=titled(title)))
        changes += opened(instance, open_, waiting.values())
        return changes

    def _end(self, instance: Instance, root: str, title: str, *, was_told: bool) -> Change:
        problem = self._problems.get((instance.name, root))
        # The first turn gets its title while it runs.
        data = {**titled(title_of(instance, root) or title), **self._message(instance, root)}
        if problem and problem.is_stopped:
            return Change(TURN_ENDED, root, data={**data, STOPPED: True})
        if problem:
            return Change(TURN_FAILED, root, data={**data, "problem": problem.why})
        return Change(TURN_ENDED, root, data=data if was_told else {**data, "unseen": True})

    def _message(self, instance: Instance, root: str) -> dict[str, str]:
        """Return which message of the outbox the turn is of, as an entry's data: another entry tells of its end."""
        handle = self._carried(instance.name, root)
        return {MESSAGE: handle} if handle else {}

    def _settled(self, instance: Instance, open_: Open, waiting: Container[str]) -> Iterator[Change]:
        for ask_id in [ask_id for ask_id in open_.asks if ask_id not in waiting]:
            ask = open_.asks.pop(ask_id)
            decision = self.decisions.noted(instance.name, ask_id)
            how = one_line(instance.state.settled_how.get(ask_id, ""), _HOW)
            how = how or (decision.how if decision else "with its turn")
            data = {**titled(ask.title), "how": how, **told(decision)}
            yield Change(ASK_SETTLED, ask.root, ask_id, data)

    # -- writing -------------------------------------------------------------------------------------------------

    def _allowance(self, machine: str) -> Bucket:
        bucket = self._allowances.setdefault(machine, Bucket(CHANGES_AT_ONCE, CHANGES_PER_SECOND))
        self._allowances.move_to_end(machine)
        if len(self._allowances) > MAX_MACHINES:
            self._allowances.popitem(last=False)
        return bucket

    def _write(self, name: str, now: Open, changes: list[Change]) -> None:
        def write() -> None:
            for change in changes:
                self._journal.append(change.kind, name, change.session, change.ask, change.data)
                if change.kind == ASK_SETTLED:
                    self.decisions.note(name, change.ask, None)
                elif change.kind in {TURN_ENDED, TURN_FAILED} and MESSAGE not in change.data:
                    self._own.ended(name, change.session)
            self._open.set(name, now)

        self._journal.together(write)
        for change in (each for each in changes if each.kind in {TURN_ENDED, TURN_FAILED}):
            self._problems.pop((name, change.session), None)

    # -- from time to time ---------------------------------------------------------------------------------------

    async def _tend(self) -> None:
        while True:
            try:
                await self._tend_once()
            except Exception:
                log.exception("recording failed")
            await asyncio.sleep(_TEND_SECONDS)

    async def _tend_once(self) -> None:
        if not self._leads:
            self._led = ""
            return
        if self._led != self._journal.epoch:
            # What happened before this copy led, or while the journal was another one.
            self._led = self._journal.epoch
            self._told_away.clear()
            self._open.recount()
            self._due.update(dict.fromkeys(self._fleet.all_instances(), 0))
        for instance in tuple(self._due):
            self._look(instance, was_told=False)
            await asyncio.sleep(0)  # of many, nobody waits for all
        for name, missing in self._absent():
            self._lose(name, missing)
            await asyncio.sleep(0)

    def _absent(self) -> list[tuple[str, Instance | None]]:
        """Return those that are away for so long that it is news, or were found to be so by another copy."""
        present = {instance.name: instance for instance in self._fleet.all_instances()}
        now = time.monotonic()
        names = present.keys() | set(self._open.names())
        self._away = {name: since for name, since in self._away.items() if name in names}
        self._told_away &= names
        absent = []
        for name in names:
            instance = present.get(name)
            if instance is not None and instance.connected.is_set():
                self._is_there(name)
            elif now - self._away.setdefault(name, now) >= self._lost_after and name not in self._told_away:
                absent.append((name, instance))
        return absent

    def _is_there(self, name: str) -> None:
        self._away.pop(name, None)
        self._told_away.discard(name)

    def _lose(self, name: str, instance: Instance | None) -> None:
        payer = _payer(instance) if instance is not None else self._open.machine_of(name) or name
        if not self._leads or name not in self._away or not self._allowance(payer).holds():
            return
        self._told_away.add(name)
        now = self._open.at(name)
        was_there = bool(instance.agent_version) if instance is not None else bool(now)
        if not was_there or now.lost is not None or (instance is not None and instance.closed_since is not None):
            return
        now.lost = time.time()
        if instance is not None:
            now.machine, now.directory = instance.endpoint.client or "", instance.state.directory
        if not self._open.has_room(name, now):
            return
        self._allowance(payer).take()
        why = instance.trouble if instance is not None else "it is not registered"
        data = {"why": one_line(bare(why), _WHY), "turns": len(now.turns), "asks": len(now.asks)}
        self._write(name, now, [Change(INSTANCE_LOST, data=data)])


def _payer(instance: Instance) -> str:
    """Return the machine whose allowance is used."""
    return instance.endpoint.client or instance.endpoint.name
