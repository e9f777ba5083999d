"""What a person can have done with sessions beside their turns: compact, fork, undo, redo, rename, archive, stop.

What destroys is shown first and wants the handle of its plan (`plans`). Nothing is done twice: a call that was cut
off goes on, and the same call again hears how it ended.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, get_args

from opencode_common.text import quote
from opencode_fleet.errors import BadAnswer, InstanceError, Refused, RelayError, Unreachable, Unresponsive
from opencode_fleet.events import SessionChanged
from opencode_fleet.plans import Deed, Plans

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from opencode_fleet.drive import Driver
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Message, Session

Action = Literal["stop", "compact", "fork", "undo", "redo", "rename", "archive"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
WORKS_FOR: Final = 40.0
"""Seconds after which a caller is told that it still goes on: a summary is written by a model."""
REMEMBERED_FOR: Final = 600.0
MAX_REMEMBERED: Final = 100
MAX_TITLE: Final = 200
MAX_STOPPED: Final = 100
"""Sessions that one plan stops."""
LOOKED_THROUGH: Final = 200
"""Messages among which the one to take back is looked for."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Done:
    """How it stands. `says`: a clause in our words, with what it quotes of another machine inside delimiters."""

    result: Literal["done", "nothing", "planned", "going-on", "unknown", "refused"]
    says: str
    instance: str = ""
    session: str = ""
    """The one that it is about; of a fork the new one."""
    plan: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants done. `session`: None is the one at hand, for `stop` all that run."""

    action: Action
    session: str | None = None
    value: str = ""
    plan: str = ""


class _Step(NamedTuple):
    """Something that can be done now."""

    run: Callable[[], Awaitable[Done]]
    would: str = ""
    """What it would destroy, for its plan; empty: it needs none."""
    state: str = ""
    """What the plan is bound to."""


class Controller:
    """Controls the sessions of a fleet's instances."""

    def __init__(self, fleet: Fleet, driver: Driver) -> None:
        self._fleet = fleet
        self._driver = driver
        self._plans = Plans()
        self._going_on: OrderedDict[tuple[str, Wish], tuple[float, asyncio.Task[Done]]] = OrderedDict()
        """Calls whose callers went away before they heard the end."""
        self._background: set[asyncio.Task[Any]] = set()

    async def act(self, instance: Instance, wish: Wish) -> Done:
        """Do it, or show what it would destroy.

        Raises:
            Refused: it makes no sense now, or wants another plan; nothing was done.
            InstanceError: nothing was done.
        """
        if (before := self._done_before(wish.plan)) is not None:
            return before
        key = instance.name, wish
        at, task = self._going_on.pop(key, (0.0, None))
        if task is not None and time.monotonic() - at < REMEMBERED_FOR:
            return await self._heard(key, task)
        session = await self._session(instance, wish)
        step = await self._step(instance, session, wish)
        if step.would and not wish.plan:
            plan = self._plans.propose(_deed(instance, session, wish), step.state)
            return Done("planned", step.would, instance.name, session.id, plan)
        if wish.plan:
            self._plans.use(wish.plan, _deed(instance, session, wish), step.state)
        return await self._heard(key, asyncio.create_task(self._run(instance, session, wish, step)))

    async def stop(self, instances: Sequence[Instance], wish: Wish) -> list[Done]:
        """Stop the session that is named, or all that run. Several are shown first, and want the plan.

        Raises:
            Refused: as of `act`.
        """
        if (before := self._done_before(wish.plan)) is not None:
            return [before]
        if wish.session is not None:
            return [await self._in_background(self._stop(instance, wish.session)) for instance in instances]
        running, failed = await self._running(instances)
        deed = Deed("stop", tuple(instance.name for instance in instances))
        state = repr([(instance.name, root) for instance, root in running])
        if wish.plan:
            self._plans.use(wish.plan, deed, state)
        elif len(running) > 1:
            plan = self._plans.propose(deed, state)
            would = [
                Done("planned", f"would be stopped{_title(at, root)}", at.name, root, plan) for at, root in running
            ]
            return [*would, *failed]
        done = [*await self._in_background(self._stop_all(running, wish.plan)), *failed]
        return done or [Done("nothing", "nothing runs, so nothing was stopped")]

    # -- once ----------------------------------------------------------------------------------------------------

    def _done_before(self, plan: str) -> Done | None:
        did = self._plans.used(plan) if plan else None
        if did is None:
            return None
        return Done("nothing", f"plan {plan} was used already, and nothing was done again; it did this: {did}")

    async def _heard(self, key: tuple[str, Wish], task: asyncio.Task[Done]) -> Done:
        """Wait for the end of what was begun; it goes on without its caller, and is found again by `key`."""
        try:
            finished, _ = await asyncio.wait({task}, timeout=WORKS_FOR)
        except asyncio.CancelledError:
            self._keep(key, task)
            raise
        if finished:
            return task.result()
        self._keep(key, task)
        name, wish = key
        return Done("going-on", f"{wish.action} still goes on; the same call again waits for its end", name)

    def _keep(self, key: tuple[str, Wish], task: asyncio.Task[Done]) -> None:
        self._going_on[key] = time.monotonic(), task
        while len(self._going_on) > MAX_REMEMBERED:
            self._going_on.popitem(last=False)

    async def _run(self, instance: Instance, session: Session, wish: Wish, step: _Step) -> Done:
        try:
            done = replace(await step.run(), instance=instance.name)
            # Its own notice may come later, and what is shown until then would be as before.
            with suppress(InstanceError):
                instance.tell(SessionChanged(await instance.agent.session(done.session)))
        except (Unreachable, Unresponsive, BadAnswer) as error:
            if isinstance(error, Unreachable) and error.refused:
                done = Done("refused", f"{error}; nothing was done", instance.name, session.id)
            else:
                says = (
                    f"{error}: whether {wish.action} was done is not known. Look with `read` before you ask for it "
                    "again"
                )
                done = Done("unknown", says, instance.name, session.id)
        except (InstanceError, Refused) as error:
            done = Done("refused", str(error), instance.name, session.id)
        if wish.plan:
            self._plans.finish(wish.plan, done.says)
        return done

    async def _in_background(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for what goes on also when the caller goes away."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return await asyncio.shield(task)

    # -- which session -------------------------------------------------------------------------------------------

    async def _session(self, instance: Instance, wish: Wish) -> Session:
        found = await self._driver.sessions.to_read(instance, wish.session)
        if found is None:
            raise Refused(f"{instance.quoted} has no session yet; nothing was done")
        # What is remembered may lack what was taken back there a moment ago.
        session = await instance.agent.session(found.id)
        if session.parent_id is not None:
            root = instance.state.root_of(session.id)
            raise Refused(f"session {session.id} is a subagent's; say session {root} instead. Nothing was done")
        runner = self._fleet.runner_of(session.id, besides=instance)
        if runner is not None:
            raise Refused(f"session {session.id} is run by {runner.quoted}: say that instance. Nothing was done")
        if wish.action != "rename":
            await self._check_idle(instance, session)
        return session

    async def _check_idle(self, instance: Instance, session: Session) -> None:
        await instance.refresh()
        if instance.state.family_busy(session.id) or session.id in instance.posting:
            raise Refused(
                f"session {session.id} of {instance.quoted} runs; wait for its end, or stop it first with action "
                "“stop”. Nothing was done"
            )

    # -- what ----------------------------------------------------------------------------------------------------

    async def _step(self, instance: Instance, session: Session, wish: Wish) -> _Step:
        match wish.action:
            case "compact":
                return self._compact(instance, session)
            case "fork":
                return self._fork(instance, session)
            case "undo":
                return await self._undo(instance, session)
            case "redo":
                return self._redo(instance, session)
            case "rename":
                return self._rename(instance, session, wish.value)
            case "archive":
                return self._archive(instance, session)
            case _:
                raise Refused(f"{wish.action} is not done to one session; nothing was done")

    def _compact(self, instance: Instance, session: Session) -> _Step:
        async def run() -> Done:
            await instance.agent.controls.compact(session)
            return Done("done", "its summary is written, or being written; `read` shows it", session=session.id)

        return _Step(run)

    def _fork(self, instance: Instance, session: Session) -> _Step:
        async def run() -> Done:
            copy = await instance.agent.controls.fork(session.id)
            return Done("done", f"this is the copy of session {session.id}, with all its messages", session=copy.id)

        return _Step(run)

    async def _undo(self, instance: Instance, session: Session) -> _Step:
        messages = await instance.agent.messages(session.id, LOOKED_THROUGH)
        kept = _kept(messages, session.undone_from)
        message = next((each for each in reversed(kept) if each.role == "user"), None)
        if message is None:
            raise Refused(f"session {session.id} has no message (any more) to take back; nothing was done")

        async def run() -> Done:
            await instance.agent.controls.undo(session.id, message.id)
            says = f"took back {_named(message)}, and all after it; “redo” brings it back until the next message"
            return Done("done", says, session=session.id)

        after = len(kept) - kept.index(message) - 1
        would = (
            f"would take back {_named(message)}, the {after} messages after it, and the changes to files that "
            "OpenCode made since, if it keeps them there (in a git repository)"
        )
        return _Step(run, would, f"{session.undone_from} {message.id} {messages[-1].id}")

    def _redo(self, instance: Instance, session: Session) -> _Step:
        async def run() -> Done:
            if not session.undone_from:
                return Done("nothing", "nothing is taken back there, so nothing was brought back", session=session.id)
            await instance.agent.controls.redo(session.id)
            return Done("done", "brought back all that was taken back, files too", session=session.id)

        return _Step(run)

    def _rename(self, instance: Instance, session: Session, title: str) -> _Step:
        if not title.strip() or len(title) > MAX_TITLE or not title.strip().isprintable():
            raise Refused(f"`value` is the new title: one line of 1 to {MAX_TITLE} characters; nothing was done")

        async def run() -> Done:
            await instance.agent.controls.rename(session.id, title.strip())
            return Done("done", f"its title is {quote(title, MAX_TITLE)} now", session=session.id)

        return _Step(run)

    def _archive(self, instance: Instance, session: Session) -> _Step:
        async def run() -> Done:
            await instance.agent.controls.archive(session.id)
            return Done("done", "was put away", session=session.id)

        would = f"would put away the session {quote(session.title, 80)}, which is then in no list any more"
        return _Step(run, would, f"{session.updated} {session.title}")

    # -- stopping ------------------------------------------------------------------------------------------------

    async def _running(self, instances: Sequence[Instance]) -> tuple[list[tuple[Instance, str]], list[Done]]:
        """Return what runs, in a lasting order, and who could not be asked."""

        async def roots(instance: Instance) -> list[str] | RelayError:
            try:
                await instance.refresh()
            except InstanceError as error:
                return error
            return instance.state.busy_roots()

        answers = await asyncio.gather(*map(roots, instances))
        running: list[tuple[Instance, str]] = []
        failed: list[Done] = []
        for instance, answer in zip(instances, answers, strict=True):
            if isinstance(answer, RelayError):
                failed.append(Done("refused", str(answer), instance.name))
            else:
                running += [(instance, root) for root in sorted(answer)]
        if len(running) > MAX_STOPPED:
            raise Refused(f"{len(running)} sessions run; name fewer instances. Nothing was stopped")
        return running, failed

    async def _stop_all(self, running: list[tuple[Instance, str]], plan: str) -> list[Done]:
        done = await asyncio.gather(*(self._stop(instance, root) for instance, root in running))
        if plan:
            self._plans.finish(plan, "; ".join(f"session {each.session} {each.says}" for each in done))
        return done

    async def _stop(self, instance: Instance, root: str) -> Done:
        try:
            ended = await self._driver.stop(instance, root)
        except RelayError as error:
            return Done("refused", str(error), instance.name, root)
        if ended is None:
            return Done("nothing", "does not run, so nothing was stopped", instance.name, root)
        return Done("done", "was stopped", instance.name, root)


def _deed(instance: Instance, session: Session, wish: Wish) -> Deed:
    return Deed(wish.action, (instance.name, session.id))


def _title(instance: Instance, session_id: str) -> str:
    session = instance.state.sessions.get(session_id)
    return f": {quote(session.title, 60)}" if session is not None else ""


def _kept(messages: list[Message], undone_from: str) -> list[Message]:
    """Return the messages before what is taken back already."""
    ids = [message.id for message in messages]
    return messages[: ids.index(undone_from)] if undone_from in ids else messages


def _named(message: Message) -> str:
    return f"the message {quote(message.text, 160)}"
