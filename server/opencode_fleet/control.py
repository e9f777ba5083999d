"""What a person can have done with sessions beside their turns: compact, fork, undo, redo, rename, switch, stop.

What destroys is shown first and wants the handle of its plan (`plans`). Nothing is done twice: a call that was cut
off goes on, and the same call again hears how it ended.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from opencode_common.text import quote
from opencode_fleet.agent import Capability
from opencode_fleet.background import Background
from opencode_fleet.choices import switched
from opencode_fleet.errors import FleetError, InstanceError, Refused, Unreachable
from opencode_fleet.events import SessionChanged
from opencode_fleet.going_on import GoingOn
from opencode_fleet.plans import Deed, Plans
from opencode_fleet.sessions import NEW_SESSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opencode_fleet.drive import Driver
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Message, Session

Action = Literal["stop", "compact", "fork", "undo", "redo", "rename", "archive", "agent", "model", "open", "close"]
"""`open` and `close` are done to directories (`opening`)."""
WORKS_FOR: Final = 40.0
"""Seconds after which a caller is told that it still goes on: a summary is written by a model."""
MAX_TITLE: Final = 200
MAX_STOPPED: Final = 100
"""Sessions that one plan stops."""
LOOKED_THROUGH: Final = 200
"""Messages among which the one to take back is looked for."""
_OVERWRITES: Final = "edits that were made since in the work tree, also at the desk, would be overwritten"


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

    @property
    def needs_idle(self) -> bool:
        """Whether the session must not run meanwhile."""
        return self.action != "rename"


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
        self._going_on = GoingOn[Done]()
        self._background = Background()

    def acting_for(self, driver: Driver) -> Controller:
        """Return the controller as somebody uses it, with their driver; plans are shared."""
        own = copy(self)
        own._driver = driver  # noqa: SLF001 - of the same class
        return own

    async def act(self, instance: Instance, wish: Wish) -> Done:
        """Do it, or show what it would destroy.

        Raises:
            Refused: it makes no sense now, or wants another plan; nothing was done.
            InstanceError: nothing was done.
        """
        # The same words first: what “the session at hand” is may have changed by what they did.
        said = instance.name, wish
        if (task := self._going_on.find(said)) is not None:
            return await self._heard(instance, wish, task, is_earlier=True)
        if (before := self._done_before(wish.plan)) is not None:
            return before
        session = await self._session(instance, wish)
        meant = instance.name, replace(wish, session=session.id)
        step = await self._step(instance, session, wish)
        if wish.needs_idle:
            await instance.refresh()
            await self._driver.sessions.check_ours(instance, session.id)
        # From here on nobody else comes in between.
        if (task := self._going_on.find(meant)) is not None:
            return await self._heard(instance, wish, task, is_earlier=True)
        if wish.needs_idle:
            _check_idle(instance, session)
        state = frozenset({step.state})
        if step.would and not wish.plan:
            plan = self._plans.propose(_deed(instance, session, wish), state)
            return Done("planned", step.would, instance.name, session.id, plan)
        if wish.plan:
            self._plans.use(wish.plan, _deed(instance, session, wish), state)
        if wish.needs_idle:
            instance.posting.add(session.id)
        task = self._background.start(self._run(instance, session, wish, step))
        self._going_on.add(task, said, meant)
        return await self._heard(instance, wish, task)

    async def stop(self, instances: Sequence[Instance], wish: Wish) -> list[Done]:
        """Stop the session that is named, or all that run. Several are shown first, and want the plan.

        The plan holds while nothing runs that it did not show; what has ended since needs no stopping.

        Raises:
            Refused: as of `act`.
        """
        if (before := self._done_before(wish.plan)) is not None:
            return [before]
        if wish.session == NEW_SESSION:
            raise Refused(f"{NEW_SESSION!r} is no session that could run; say which one. Nothing was stopped")
        if wish.session is not None:
            named = [(instance, wish.session) for instance in instances]
            return await asyncio.shield(self._background.start(self._stop_named(named)))
        running, failed = await self._running(instances)
        deed = Deed("stop", ())
        state = frozenset(f"{instance.name} {root}" for instance, root in running)
        if wish.plan:
            self._plans.use(wish.plan, deed, state)
        elif len(running) > 1:
            plan = self._plans.propose(deed, state)
            would = [
                Done("planned", f"would be stopped{_titled(at, root)}", at.name, root, plan) for at, root in running
            ]
            return [*would, *failed]
        done = [*await asyncio.shield(self._background.start(self._stop_all(running, wish.plan))), *failed]
        return done or [Done("nothing", "nothing runs, so nothing was stopped")]

    # -- once ----------------------------------------------------------------------------------------------------

    def _done_before(self, plan: str) -> Done | None:
        did = self._plans.used(plan) if plan else None
        if did is None:
            return None
        return Done("nothing", f"plan {plan} was used already, and nothing was done again; it did this: {did}")

    async def _heard(
        self, instance: Instance, wish: Wish, task: asyncio.Task[Done], *, is_earlier: bool = False
    ) -> Done:
        """Wait for the end of what was begun, which goes on without its caller. `is_earlier`: by another call."""
        finished, _ = await asyncio.wait({task}, timeout=WORKS_FOR)
        if not finished:
            return Done(
                "going-on", f"{wish.action} still goes on; the same call again waits for its end", instance.name
            )
        self._going_on.heard(task)
        done = task.result()
        if is_earlier:
            note = "this is the end of an earlier call, and nothing was done again"
            done = replace(done, says=f"{done.says} ({note})")
        return done

    async def _run(self, instance: Instance, session: Session, wish: Wish, step: _Step) -> Done:
        try:
            done = replace(await step.run(), instance=instance.name)
            # Its own notice may come later, and what is shown until then would be as before.
            with suppress(InstanceError):
                instance.tell(SessionChanged(await instance.agent.session(done.session)))
        except (InstanceError, Refused) as error:
            done = _not_done(instance, session, wish, error)
        finally:
            if wish.needs_idle:
                instance.posting.discard(session.id)
        if wish.plan:
            self._plans.finish(wish.plan, done.says)
        return done

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
        return session

    # -- what ----------------------------------------------------------------------------------------------------

    async def _step(self, instance: Instance, session: Session, wish: Wish) -> _Step:
        plain = {"compact": self._compact, "fork": self._fork, "redo": self._redo, "archive": self._archive}
        if (step := plain.get(wish.action)) is not None:
            return step(instance, session)
        match wish.action:
            case "undo":
                return await self._undo(instance, session)
            case "rename":
                return self._rename(instance, session, wish.value)
            case "agent" | "model":
                return await self._switch(instance, session, wish)
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
            f"would take back {_named(message)}, {_counted(after)} after it, and the changes to files that "
            f"OpenCode made since, if it keeps them there (in a git repository); {_OVERWRITES}"
        )
        return _Step(run, would, f"{session.undone_from} {message.id} {messages[-1].id}")

    def _redo(self, instance: Instance, session: Session) -> _Step:
        async def run() -> Done:
            if not session.undone_from:
                return Done("nothing", "nothing is taken back there, so nothing was brought back", session=session.id)
            await instance.agent.controls.redo(session.id)
            return Done("done", "brought back all that was taken back, files too", session=session.id)

        would = f"would bring back all that was taken back, files too; {_OVERWRITES}" if session.undone_from else ""
        return _Step(run, would, session.undone_from)

    def _rename(self, instance: Instance, session: Session, title: str) -> _Step:
        if not title.strip() or len(title) > MAX_TITLE or not title.strip().isprintable():
            raise Refused(f"`value` is the new title: one line of 1 to {MAX_TITLE} characters; nothing was done")

        async def run() -> Done:
            await instance.agent.controls.rename(session.id, title.strip())
            return Done("done", f"its title is {quote(title, MAX_TITLE)} now", session=session.id)

        return _Step(run)

    def _archive(self, instance: Instance, session: Session) -> _Step:
        if not instance.can(Capability.ARCHIVES):
            raise Refused(
                f"the OpenCode of {instance.quoted} cannot put sessions away from afar. Nothing was done; “rename” "
                "can mark the session as over"
            )

        async def run() -> Done:
            await instance.agent.controls.archive(session.id)
            return Done("done", "was put away", session=session.id)

        would = f"would put away the session {quote(session.title, 80)}, which is then in no list any more"
        return _Step(run, would, f"{session.updated} {session.title}")

    async def _switch(self, instance: Instance, session: Session, wish: Wish) -> _Step:
        choice = await switched(instance, wish.action, wish.value)

        async def run() -> Done:
            await instance.agent.controls.switch(session.id, choice.agent, choice.model)
            chosen = quote(choice.agent or choice.model, 200)
            return Done("done", f"goes on with the {wish.action} {chosen}", session=session.id)

        return _Step(run)

    # -- stopping ------------------------------------------------------------------------------------------------

    async def _running(self, instances: Sequence[Instance]) -> tuple[list[tuple[Instance, str]], list[Done]]:
        """Return what runs, in a lasting order, and who could not be asked."""

        async def roots(instance: Instance) -> list[str] | FleetError:
            try:
                await instance.refresh()
            except InstanceError as error:
                return error
            return instance.state.busy_roots()

        answers = await asyncio.gather(*map(roots, instances))
        running: list[tuple[Instance, str]] = []
        failed: list[Done] = []
        for instance, answer in zip(instances, answers, strict=True):
            if isinstance(answer, FleetError):
                failed.append(Done("refused", str(answer), instance.name))
            else:
                running += [(instance, root) for root in sorted(answer)]
        if len(running) > MAX_STOPPED:
            raise Refused(f"{len(running)} sessions run; name fewer instances. Nothing was stopped")
        return running, failed

    async def _stop_all(self, running: list[tuple[Instance, str]], plan: str) -> list[Done]:
        stopped = await self._stop_named(running)
        done = [replace(each, session=root) for each, (_, root) in zip(stopped, running, strict=True)]
        if plan:
            did = "; ".join(f"session {each.session} {each.says}" for each in done)
            self._plans.finish(plan, did or "nothing ran any more, so nothing was stopped")
        return done

    async def _stop_named(self, wanted: list[tuple[Instance, str]]) -> list[Done]:
        return list(await asyncio.gather(*(self._stop(instance, each) for instance, each in wanted)))

    async def _stop(self, instance: Instance, wanted: str) -> Done:
        try:
            ended = await self._driver.stop(instance, wanted)
        except FleetError as error:
            return Done("refused", str(error), instance.name)
        if ended is None:
            return Done("nothing", "does not run, so nothing was stopped", instance.name)
        return Done("done", "was stopped", instance.name, ended)


def _check_idle(instance: Instance, session: Session) -> None:
    if instance.state.family_busy(session.id) or session.id in instance.posting:
        raise Refused(
            f"session {session.id} of {instance.quoted} runs; wait for its end, or stop it first with action "
            "“stop”. Nothing was done"
        )


def _not_done(instance: Instance, session: Session, wish: Wish, error: FleetError) -> Done:
    """Return what an error says of the wish: that it was not done, or that this is not known."""
    if error.is_doubtful:
        says = f"{error}: whether {wish.action} was done is not known. Look with `read` before you ask for it again"
        return Done("unknown", says, instance.name, session.id)
    says = f"{error}; nothing was done" if isinstance(error, Unreachable) else str(error)
    return Done("refused", says, instance.name, session.id)


def _deed(instance: Instance, session: Session, wish: Wish) -> Deed:
    return Deed(wish.action, (instance.name, session.id))


def _titled(instance: Instance, session_id: str) -> str:
    title = instance.state.title(session_id)
    return f": {quote(title, 60)}" if title else ""


def _kept(messages: list[Message], undone_from: str) -> list[Message]:
    """Return the messages before what is taken back already."""
    ids = [message.id for message in messages]
    return messages[: ids.index(undone_from)] if undone_from in ids else messages


def _counted(messages: int) -> str:
    return "the one message" if messages == 1 else f"the {messages} messages" if messages else "nothing"


def _named(message: Message) -> str:
    return f"the message {quote(message.text, 160)}"
