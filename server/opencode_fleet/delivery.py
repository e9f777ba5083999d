"""Send what waits in the outbox once its instance is there and idle: one message after the other, each once.

The copy of the server that leads does so. Each message is posted under the id that it was accepted with, and is
looked for before it is posted again; so a server that ends between two steps sends nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from opencode_common.text import bare, one_line
from opencode_fleet.choices import Manner
from opencode_fleet.errors import (
    AgentGone,
    Busy,
    FleetError,
    InstanceError,
    NotFound,
    Unauthorized,
    Unreachable,
    Unresponsive,
)
from opencode_fleet.model import Prompt
from opencode_fleet.posting import arrived_before
from opencode_fleet.sessions import NEW_SESSION
from opencode_fleet.turn import Turn
from opencode_journal.entries import MESSAGE_ANSWERED, MESSAGE_FAILED
from opencode_journal.errors import NotKept

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Outcome
    from opencode_fleet.outbox import KeptMessage, Outbox
    from opencode_fleet.sending import Sender
    from opencode_journal.journal import Journal
    from opencode_journal.leader import Leader

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""Between two looks at what waits, and at whether its instance is there."""
FOLLOWED_FOR: Final = 3_600.0
"""Seconds after which it is looked anew at how a turn stands."""
ASKS_LOOK: Final = 5.0
"""Seconds after which it is looked whether an ask still waits: that it was settled may have been told and lost."""
_PROBLEM: Final = 500
_TITLE: Final = 80
_LATER: Final = (Busy, Unreachable, AgentGone, Unresponsive, Unauthorized)
"""What keeps a message from being sent now, and not for good."""


class Deliverer:
    """Delivers while `running`."""

    def __init__(self, fleet: Fleet, sender: Sender, outbox: Outbox, journal: Journal, leader: Leader) -> None:
        self._fleet = fleet
        self._sender = sender
        self._outbox = outbox
        self._journal = journal
        self._leader = leader
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """By the names of instances: each has one message on its way."""
        self._failing: set[str] = set()
        """Names of those that could not be sent to when that was tried last."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver while the block runs."""
        task = asyncio.create_task(self._tend(), name="delivery")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self._stop()

    async def _tend(self) -> None:
        while True:
            try:
                await self._look()
            except NotKept:
                pass  # the journal says why; what waits does so until it serves again
            except Exception:
                log.exception("what waits to be sent cannot be looked at")
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        if not (self._leader.is_leader and self._journal.is_kept):
            await self._stop()
            return
        if self._outbox.is_empty():
            return
        self._outbox.expire(besides=self._tasks)
        there = {each.name: each for each in self._fleet.all_instances() if _is_there(each)}
        for name in dict.fromkeys(message.instance for message in self._outbox.messages()):
            if name in there and name not in self._tasks:
                task = self._tasks[name] = asyncio.create_task(self._send_all(there[name]))
                task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, _task: asyncio.Task[None]) -> None:
        self._tasks.pop(name, None)

    async def _stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _send_all(self, instance: Instance) -> None:
        """Send what waits for an instance, for as long as it takes it."""
        name = instance.name
        try:
            while messages := self._outbox.messages(name):
                if not _is_there(instance) or not await self._deliver(instance, messages[0]):
                    return
        except NotKept:
            pass  # as above
        except Exception:
            if name not in self._failing:
                self._failing.add(name)
                log.exception("what waits for %s cannot be sent", instance.quoted)
        else:
            self._failing.discard(name)

    async def _deliver(self, instance: Instance, message: KeptMessage) -> bool:
        """Bring a message to its end; return whether it has one. Else it is tried again with the next look."""
        if problem := _another(instance, message):
            self._fail(message, problem)
            return True
        if message.step == "waits":
            return not _holds_up(instance, message) and await self._send(instance, message)
        try:
            if message.step == "sending" and not await arrived_before(instance, message.to, message.id):
                return not _holds_up(instance, message) and await self._send(instance, message)
        except NotFound:
            self._fail(message, f"session {message.to} is gone; the message may have arrived before")
            return True
        except InstanceError:
            return False
        if message.step == "sending":
            self._outbox.delivered(message)
        return await self._take_up(instance, message)

    async def _send(self, instance: Instance, message: KeptMessage) -> bool:
        manner = Manner("now", message.agent, message.model)
        wanted = message.to or message.session or None
        try:
            text = self._outbox.text(message)
            prompt, note = await self._sender.prepare(instance, text, wanted, manner, message.id)
            prompt = replace(prompt, files=self._outbox.files(message))
        except _LATER:
            return False
        except FleetError as error:
            self._fail(message, str(error))
            return True
        if problem := _another(instance, message):
            self._fail(message, problem)  # it has moved meanwhile
            return True
        turn = Turn(instance, prompt, on_text=_unheard)
        with instance.listening(turn.hear):
            # Nothing is awaited between this and the post, so that nobody comes in between.
            begun = self._outbox.begin(message, prompt.session_id)
            if begun is None:
                return False  # it was cancelled meanwhile
            try:
                await self._sender.post(instance, prompt)
            except FleetError as error:
                return self._not_taken(begun, error)
            self._outbox.delivered(begun, note=note)
            return await self._follow(instance, begun, turn, note)

    def _not_taken(self, message: KeptMessage, error: FleetError) -> bool:
        if not error.is_doubtful and not isinstance(error, _LATER):
            self._fail(message, str(error))
            return True
        if not error.is_doubtful:
            self._outbox.put_back(message)
        return False

    async def _take_up(self, instance: Instance, message: KeptMessage) -> bool:
        prompt = Prompt(message.to, message.id, self._outbox.text(message), message.agent, message.model)
        turn = Turn(instance, prompt, on_text=_unheard, running=True)
        with instance.listening(turn.hear):
            return await self._follow(instance, message, turn)

    async def _follow(self, instance: Instance, message: KeptMessage, turn: Turn, note: str = "") -> bool:
        """Follow its turn to the end; return False if that cannot be seen now. `note`: what to say of it besides."""
        while True:
            outcome = await turn.follow(FOLLOWED_FOR)
            if outcome.asks:
                await _settled(instance, outcome, turn)
            elif outcome.result == "done":
                note = outcome.note or note
                self._outbox.end(message, MESSAGE_ANSWERED, title=_title(instance, message), note=note)
                return True
            elif outcome.result == "failed":
                self._fail(message, outcome.problem, _title(instance, message))
                return True
            if not _is_there(instance):
                return False

    def _fail(self, message: KeptMessage, problem: str, title: str = "") -> None:
        self._outbox.end(message, MESSAGE_FAILED, problem=one_line(bare(problem), _PROBLEM), title=title)


def _is_there(instance: Instance) -> bool:
    return instance.connected.is_set() and instance.closed_since is None


def _another(instance: Instance, message: KeptMessage) -> str:
    """Say that another machine, or another directory, has the name that the message is for; empty if not."""
    if message.machine and message.machine != instance.endpoint.short_machine:
        return f"another machine has this name now ({instance.endpoint.machine}); nothing was sent"
    if message.directory and message.directory != instance.state.directory:
        return f"an instance in another directory has this name now ({instance.state.directory}); nothing was sent"
    return ""


def _holds_up(instance: Instance, message: KeptMessage) -> bool:
    """Whether something runs there, by what is known without asking, that the message comes after."""
    wanted = message.to or message.session
    if wanted == NEW_SESSION:
        return False
    if wanted.startswith("ses_"):
        return instance.state.family_busy(wanted)
    return bool(instance.state.busy_roots())


async def _settled(instance: Instance, outcome: Outcome, turn: Turn) -> None:
    """Wait until none of the asks waits any more, and tell the turn if one was refused."""
    changed = asyncio.Event()
    with instance.listening(lambda _: changed.set()):
        while _is_there(instance) and instance.state.pending_asks(outcome.session_id):
            changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(ASKS_LOOK):
                    await changed.wait()
    if any(instance.state.settled_how.get(ask.id) == "reject" for ask in outcome.asks):
        turn.refuse()


def _title(instance: Instance, message: KeptMessage) -> str:
    return one_line(instance.state.title(message.to), _TITLE)


async def _unheard(_text: str) -> None:
    """Take what streams: nobody waits for it."""
