"""Send an instance a message: into which session, at which moment, exactly once; and follow its turn.

A caller may go away at any time: the agent's work goes on, and what was being posted is posted.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from opencode_common.text import quote
from opencode_fleet.agent import Capability
from opencode_fleet.choices import Manner, offered
from opencode_fleet.commands import run_once
from opencode_fleet.errors import Busy, FleetError, InstanceError, Refused, Unresponsive
from opencode_fleet.model import Outcome, Prompt
from opencode_fleet.posting import post_once
from opencode_fleet.prompt_ids import new_prompt_id
from opencode_fleet.repeats import Call, Sent
from opencode_fleet.sessions import NEW_SESSION
from opencode_fleet.turn import RECORD_WITHIN, Turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opencode_fleet.background import Background
    from opencode_fleet.choices import When
    from opencode_fleet.commands import Command
    from opencode_fleet.earlier import Earlier
    from opencode_fleet.events import Event
    from opencode_fleet.instance import Instance
    from opencode_fleet.kept_calls import Before
    from opencode_fleet.model import Result
    from opencode_fleet.sessions import Sessions

    OnText = Callable[[str], Awaitable[None]]

AS_IT_IS = Manner()
"""Into an idle session, which keeps its agent and model."""
TAKEN_FOR = 10.0
"""Seconds after which a prompt that nobody follows any more no longer holds its session."""
HELD_FOR = 120.0
"""The same for one that was accepted and not begun, as where a hook of a plugin takes its time."""
AT_ONCE = 8
"""Instances that one message is sent to at the same time."""
START_WITHIN = 30.0
"""Seconds in which each of several instances must have taken a message."""
_SENT_BEFORE = (
    "this very message was sent before, by a call that was cut off; this is its turn, and nothing was sent again. "
    "To have it done once more, say so in other words"
)

_NOT_TOLD = "OpenCode took the command and did not tell which message it became; `read` shows it"


class _Posted(NamedTuple):
    """A prompt that is being posted, or was."""

    session_id: str
    task: asyncio.Task[Any]
    ran: float | None
    """When its session was last known to run before."""

    def began(self, instance: Instance) -> bool:
        """Whether the session was seen to run since, however shortly."""
        state = instance.state
        return state.is_busy(self.session_id) or state.ran.get(self.session_id) != self.ran


class _Ready(NamedTuple):
    """A prompt that may be posted."""

    prompt: Prompt
    when: When
    """At which moment it comes indeed: where nothing runs, there is nothing to join or to wait for."""
    note: str


class Sender:
    """Sends messages into the sessions of instances. Times are in seconds."""

    def __init__(self, sessions: Sessions, timeout: float, background: Background, earlier: Earlier) -> None:
        self._sessions = sessions
        self._timeout = timeout
        self._background = background
        self.earlier = earlier

    async def send(
        self, instance: Instance, message: str, wanted: str | None, on_text: OnText, manner: Manner = AS_IT_IS
    ) -> Outcome:
        """Post `message` and follow its turn; one that is queued behind another turn is not followed.

        Raises:
            Refused: the session is busy, or what `manner` asks for is not to be had; nothing was sent.
            InstanceError: it could not be posted; the message says whether it may have arrived.
        """
        call = Call(instance.name, wanted, message, manner)
        before = await self.earlier.before(instance, call)
        if before is not None and before.sent is not None:
            return await self._take_up(instance, call, before.sent, on_text)
        deadline = time.monotonic() + self._timeout
        ready = await self._ready(instance, message, wanted, manner, self._timeout, before=before)
        prompt = ready.prompt
        turn = Turn(instance, prompt, on_text=on_text, running=ready.when == "steer")
        begins = ready.when == "now"
        with instance.listening(turn.hear), self.earlier.answering(call, prompt, begins=begins):
            post = self._begin(instance, prompt, deadline)
            try:
                # Shielded: a caller who goes away must not leave it unknown whether the message was sent.
                await asyncio.shield(post.task)
                if ready.when == "queue":
                    self._background.start(self._release(instance, post, TAKEN_FOR))
                    return _accepted(ready)
                outcome = await turn.follow(deadline - time.monotonic())
            except BaseException as error:
                if not isinstance(error, Exception):
                    self.earlier.cut(call, Sent(prompt, post.task))
                self._background.start(self._release(instance, post, TAKEN_FOR))
                raise
            if outcome.result == "running" and turn.is_only_accepted:
                # It comes later all the same, and must not be overtaken.
                self._background.start(self._release(instance, post, HELD_FOR))
            else:
                instance.posting.discard(prompt.session_id)
            return replace(outcome, note=_both(outcome.note, ready.note), when=ready.when)

    async def run(
        self, instance: Instance, command: Command, wanted: str | None, on_text: OnText, manner: Manner
    ) -> Outcome:
        """Run a command of the agent's, at most once, and follow its turn.

        Raises:
            Refused: the session is busy, or `manner` asks for more than that; nothing was sent.
            InstanceError: the message says whether it may run.
        """
        if manner != AS_IT_IS:
            raise Refused(
                f"/{command.name} is a command: it begins in an idle session, with the session's agent and model. "
                "Send it without `when`, `agent`, `model` and `files`; nothing was sent"
            )
        call = Call(instance.name, wanted, f"/{command.name} {command.arguments}")
        if sent_before := await self.earlier.command(call):
            return Outcome("running", sent_before, note=_SENT_BEFORE)
        deadline = time.monotonic() + self._timeout
        ready = await self._ready(instance, command.arguments, wanted, manner, self._timeout)
        prompt = ready.prompt
        instance.posting.add(prompt.session_id)
        ran = instance.state.ran.get(prompt.session_id)
        noted = self.earlier.commands.run(
            call, prompt.session_id, command.name, run_once(instance, command.name, prompt)
        )
        running = self._background.start(noted)
        self._background.start(self._release(instance, _Posted(prompt.session_id, running, ran), TAKEN_FOR))
        with self.earlier.commands.answering(instance.name, prompt.session_id):
            try:
                prompt_id = await asyncio.shield(running)
                if not prompt_id:
                    return Outcome("running", prompt.session_id, note=_NOT_TOLD)
                turn = Turn(instance, replace(prompt, id=prompt_id), on_text=on_text, running=True)
                with instance.listening(turn.hear):
                    outcome = await turn.follow(deadline - time.monotonic())
            except asyncio.CancelledError:
                self.earlier.cut(call, Sent(prompt, running))
                raise
        return replace(outcome, note=_both(outcome.note, ready.note))

    async def prepare(
        self, instance: Instance, message: str, wanted: str | None, manner: Manner, prompt_id: str
    ) -> tuple[Prompt, str]:
        """Return the prompt, under this id, that `message` is now, and what the person should know of it.

        Raises:
            Busy: its session runs.
            Refused, InstanceError: see `send`; nothing was sent.
        """
        ready = await self._ready(instance, message, wanted, manner, START_WITHIN)
        return replace(ready.prompt, id=prompt_id), ready.note

    async def post(self, instance: Instance, prompt: Prompt) -> None:
        """Post what `prepare` returned just now, and return once it is taken.

        Raises:
            InstanceError: it was not taken, or that is not known (`is_doubtful`).
        """
        post = self._begin(instance, prompt, time.monotonic() + START_WITHIN)
        try:
            await asyncio.shield(post.task)
        finally:
            self._background.start(self._release(instance, post, TAKEN_FOR))

    async def send_to_all(
        self, instances: Sequence[Instance], message: str, wanted: str | None, manner: Manner
    ) -> list[Outcome | FleetError]:
        """Post `message` to each instance, `AT_ONCE` at a time, and wait for no turn.

        Returns what became of each, in order: that it runs or is queued, or the error that says why it does not.
        """
        places = asyncio.Semaphore(AT_ONCE)
        posted: list[tuple[Call, Sent]] = []

        async def one(instance: Instance) -> Outcome | FleetError:
            async with places:
                try:
                    return await self._start(instance, message, wanted, manner, posted)
                except FleetError as error:
                    return error

        try:
            return list(await asyncio.gather(*map(one, instances)))
        except asyncio.CancelledError:
            # Whoever repeats the call must not send it twice to those that have it already.
            for call, sent in posted:
                self.earlier.cut(call, sent)
            raise

    async def _start(
        self,
        instance: Instance,
        message: str,
        wanted: str | None,
        manner: Manner,
        posted: list[tuple[Call, Sent]],
    ) -> Outcome:
        call = Call(instance.name, wanted, message, manner)
        before = await self.earlier.before(instance, call)
        if before is not None and before.sent is not None:
            posted.append((call, before.sent))
            return Outcome("running", before.session_id, note=_SENT_BEFORE)
        deadline = time.monotonic() + START_WITHIN
        ready = await self._ready(instance, message, wanted, manner, START_WITHIN, before=before)
        with self.earlier.answering(call, ready.prompt, begins=ready.when == "now"):
            post = self._begin(instance, ready.prompt, deadline)
            posted.append((call, Sent(ready.prompt, post.task)))
            try:
                await asyncio.shield(post.task)
            finally:
                self._background.start(self._release(instance, post, TAKEN_FOR))
        return _accepted(ready)

    def _begin(self, instance: Instance, prompt: Prompt, deadline: float) -> _Posted:
        """Begin to post; nobody else posts to that session until it is released."""
        instance.posting.add(prompt.session_id)
        ran = instance.state.ran.get(prompt.session_id)
        task = self._background.start(self._post(instance, prompt, deadline))
        return _Posted(prompt.session_id, task, ran)

    async def _post(self, instance: Instance, prompt: Prompt, deadline: float) -> None:
        await post_once(instance, prompt, deadline)
        self.earlier.commands.told(instance.name, prompt.session_id)  # by a note of `_ready`

    async def _take_up(self, instance: Instance, call: Call, sent: Sent, on_text: OnText) -> Outcome:
        """Follow the turn of a call that was cut off: the same call again asks for its answer."""
        turn = Turn(instance, sent.prompt, on_text=on_text, running=True)
        with instance.listening(turn.hear), self.earlier.answering(call, sent.prompt):
            try:
                outcome = await turn.follow(self._timeout)
            except asyncio.CancelledError:
                self.earlier.cut(call, sent)
                raise
        return replace(outcome, note=_SENT_BEFORE)

    async def _release(self, instance: Instance, post: _Posted, longest: float) -> None:
        """Keep the session taken until OpenCode shows it busy: a moment after the prompt, not at once.

        `longest`: seconds after which it is free in any case.
        """
        await asyncio.wait([post.task])
        began = asyncio.Event()

        def look(_event: Event | None) -> None:
            if post.began(instance):
                began.set()

        with instance.listening(look), suppress(TimeoutError):
            look(None)
            if not post.task.cancelled() and post.task.exception() is None:
                async with asyncio.timeout(longest):
                    await began.wait()
        instance.posting.discard(post.session_id)

    # -- what, where and when ------------------------------------------------------------------------------------

    async def _ready(
        self,
        instance: Instance,
        message: str,
        wanted: str | None,
        manner: Manner,
        within: float,
        *,
        before: Before | None = None,
    ) -> _Ready:
        """Choose the session, check that it takes a message now, and have it go on in `manner`.

        `before`: what has not arrived yet of the same call: it is posted under its own id, where it was to go.

        Raises:
            Refused, InstanceError: it does not, or it took longer than `within` to find out; nothing was sent.
        """
        try:
            async with asyncio.timeout(max(RECORD_WITHIN, within)):
                manner = await offered(instance, manner)
                session, note = await self._sessions.to_drive(instance, before.session_id if before else wanted)
                when = await self._moment(instance, session.id, manner)
                if manner.agent or manner.model:
                    await self._switch(instance, session.id, manner)
        except TimeoutError:
            raise Unresponsive(f"the records of {instance.quoted} did not come in time; nothing was sent") from None
        except InstanceError as error:
            # Whatever broke, it broke before the message was posted.
            error.args = (f"{error}; nothing was sent",)
            error.is_doubtful = False
            raise
        if when != manner.when:
            note = note or "nothing ran there, so it began at once"
        prompt = Prompt(
            session.id,
            before.prompt_id if before else new_prompt_id(),
            message,
            manner.agent or session.agent,
            manner.model or session.model,
            "" if manner.model else session.variant,
            delivery="queue" if when == "queue" else "steer",
            files=manner.files,
        )
        return _Ready(prompt, when, _both(note, self.earlier.commands.unknown(instance.name, session.id)))

    async def _switch(self, instance: Instance, session_id: str, manner: Manner) -> None:
        """Have an idle session go on in `manner`. Raises `Refused`: it has begun to run meanwhile."""
        # Taken, so that nobody else switches it or posts to it between this and the message.
        instance.posting.add(session_id)
        try:
            await instance.agent.switch(session_id, manner.agent, manner.model)
        finally:
            instance.posting.discard(session_id)
        await self._moment(instance, session_id, manner)

    async def _moment(self, instance: Instance, session_id: str, manner: Manner) -> When:
        """Return when a message comes that is sent now. Raises `Refused`: it must not be sent now."""
        if instance.state.family_busy(session_id):
            # That it ended may have been told and lost.
            await instance.refresh()
        is_busy = instance.state.family_busy(session_id)
        # What is being posted runs a moment later; until then nobody knows what would be joined.
        if (is_busy and manner.when == "now") or (not is_busy and session_id in instance.posting):
            raise Busy(self._busy(instance, session_id))
        if not is_busy:
            return "now"
        if manner.agent or manner.model:
            raise Refused(
                f"session {session_id} runs, and a running turn keeps its agent and model; nothing was sent. Send "
                "without `agent` and `model`, or once it has ended"
            )
        if manner.when == "queue" and not instance.can(Capability.QUEUES):
            raise Refused(
                f"the OpenCode of {instance.quoted} keeps no message for after the running turn: it would join that "
                "turn at its next step; nothing was sent. Use when='steer' if it may, wait for the end, or send with "
                f"session={NEW_SESSION!r} to work beside it"
            )
        return manner.when

    def _busy(self, instance: Instance, session_id: str) -> str:
        live = instance.state.live(session_id)
        asks = instance.state.pending_asks(session_id)
        status = instance.state.statuses.get(session_id)
        if asks:
            doing = "it waits for a person: see `reply`"
        elif status is not None and status.kind == "retry":
            doing = f"the model's service failed, it tries again: {quote(status.message, 160)}"
        elif live.tool:
            doing = f"it runs {quote(live.tool, 100)}"
        elif live.text:
            doing = f"it is writing {quote(live.text[-160:], 160)}"
        elif session_id in instance.posting and not instance.state.family_busy(session_id):
            doing = "it has accepted a message and not begun with it, or is being changed"
        else:
            doing = "it is thinking"
        return (
            f"{instance.quoted} is busy in session {session_id} ({doing}); nothing was sent. Wait (`read` shows how "
            f"far it is), send it into the running turn with when='steer', stop it with abort=true, or send with "
            f"session={NEW_SESSION!r} to work beside it"
        )


def _both(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _accepted(ready: _Ready) -> Outcome:
    """Return that a message was taken, whose turn nobody waits for."""
    result: Result = "queued" if ready.when == "queue" else "running"
    return Outcome(result, ready.prompt.session_id, note=ready.note, when=ready.when)
