"""What a person can have an instance do: send it a prompt, stop it, settle what it asks.

Which session a message is for is chosen in `sessions`.

All of it is safe to interrupt: the agent's work goes on when a caller goes away.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from opencode_common.text import quote
from opencode_fleet.answers import REJECT
from opencode_fleet.background import Background
from opencode_fleet.errors import InstanceError, NotFound, Refused, Unreachable, Unresponsive
from opencode_fleet.model import Prompt
from opencode_fleet.prompt_ids import new_prompt_id
from opencode_fleet.repeats import Call, Repeats
from opencode_fleet.sessions import NEW_SESSION, Sessions
from opencode_fleet.settling import Settler
from opencode_fleet.turn import RECORD_WITHIN, Turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opencode_fleet.events import Event
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Outcome
    from opencode_fleet.sessions import Chosen
    from opencode_fleet.settling import IsSeen, Replies

    OnText = Callable[[str], Awaitable[None]]

TAKEN_FOR = 10.0
"""Seconds after which a prompt that nobody follows any more no longer holds its session."""
HELD_FOR = 120.0
"""The same for one that was accepted and not begun, as where a hook of a plugin takes its time."""
STOP_TIMEOUT = 15.0
STOP_LOOK_INTERVAL = 0.25
STOP_QUIET_LOOKS = 2
"""Looks in a row that must find it idle: a parent may begin one more step when its subagent is stopped."""
_SENT_BEFORE = (
    "this very message was sent before, by a call that was cut off; this is its turn, and nothing was sent again. "
    "To have it done once more, say so in other words"
)


class _Posted(NamedTuple):
    """A prompt that is being posted, or was."""

    session_id: str
    task: asyncio.Task[None]
    ran: float | None
    """When its session was last known to run before."""

    def began(self, instance: Instance) -> bool:
        """Whether the session was seen to run since, however shortly."""
        state = instance.state
        return state.is_busy(self.session_id) or state.ran.get(self.session_id) != self.ran


class Driver:
    """Acts on the instances of a fleet. Times are in seconds."""

    def __init__(self, fleet: Fleet, timeout: float) -> None:
        self.sessions = Sessions(fleet)
        self._timeout = timeout
        self._repeats = Repeats()
        self._background = Background()
        self._settler = Settler(timeout, self._background, self.send)

    # -- sending -------------------------------------------------------------------------------------------------

    async def send(self, instance: Instance, message: str, wanted: str | None, on_text: OnText) -> Outcome:
        """Post `message` and follow the turn.

        Raises:
            Refused: the session is busy; nothing was sent.
            InstanceError: it could not be posted; the message says whether it may have arrived.
        """
        call = Call(instance.name, wanted, message)
        sent_before = self._repeats.take(call)
        if sent_before is not None:
            return await self._take_up(instance, call, sent_before, on_text)
        deadline = time.monotonic() + self._timeout
        session, note = await self._free_session(instance, wanted)
        prompt = Prompt(session.id, new_prompt_id(), message, session.agent, session.model, session.variant)
        turn = Turn(instance, prompt, on_text=on_text)
        with instance.listening(turn.hear):
            instance.posting.add(session.id)
            ran = instance.state.ran.get(session.id)
            post = _Posted(session.id, self._background.start(self._post(instance, prompt, deadline)), ran)
            try:
                # Shielded: a caller who goes away must not leave it unknown whether the message was sent.
                await asyncio.shield(post.task)
                outcome = await turn.follow(deadline - time.monotonic())
            except BaseException as error:
                if not isinstance(error, Exception):
                    self._repeats.cut(call, prompt)
                self._background.start(self._release(instance, post, TAKEN_FOR))
                raise
            if outcome.result == "running" and turn.is_only_accepted:
                # It comes later all the same, and must not be overtaken.
                self._background.start(self._release(instance, post, HELD_FOR))
            else:
                instance.posting.discard(session.id)
            return replace(outcome, note=outcome.note or note)

    async def _take_up(self, instance: Instance, call: Call, prompt: Prompt, on_text: OnText) -> Outcome:
        """Follow the turn of a call that was cut off: the same call again asks for its answer."""
        turn = Turn(instance, prompt, on_text=on_text, running=True)
        with instance.listening(turn.hear):
            try:
                outcome = await turn.follow(self._timeout)
            except asyncio.CancelledError:
                self._repeats.cut(call, prompt)
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

    async def _post(self, instance: Instance, prompt: Prompt, deadline: float) -> None:
        """Post the prompt once. A post whose answer was lost is looked for before it is posted again."""
        session_id = prompt.session_id
        doubtful = False
        while True:
            try:
                async with asyncio.timeout(max(RECORD_WITHIN, deadline - time.monotonic())):
                    if doubtful and await self._has_arrived(instance, prompt):
                        return
                    await instance.agent.prompt(prompt)
            except TimeoutError:
                raise Unresponsive(
                    f"{instance.quoted} did not say in time that it took the message: it may have arrived. "
                    f"Use `read` on session {session_id} before sending it again"
                ) from None
            except NotFound:
                instance.state.forget(session_id)
                sent = "the message may have arrived before" if doubtful else "nothing was sent"
                raise NotFound(f"session {session_id} is gone from {instance.quoted}; {sent}") from None
            except (Unreachable, Unresponsive) as error:
                if not doubtful and isinstance(error, Unreachable) and error.refused:
                    raise Unreachable(f"{error}; nothing was sent") from None
                doubtful = True
                try:
                    async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                        await self._reconnected(instance)
                except TimeoutError:
                    raise Unreachable(
                        f"the connection to {instance.quoted} broke while the message was sent, and did not come "
                        f"back: it may have arrived. Use `read` on session {session_id} before sending it again"
                    ) from None
            else:
                return

    async def _reconnected(self, instance: Instance) -> None:
        # The request may have broken before the stream noticed: let it notice.
        await asyncio.sleep(0.2)
        await instance.connected.wait()

    async def _has_arrived(self, instance: Instance, prompt: Prompt) -> bool:
        record = await instance.agent.turn(prompt.session_id, prompt.id)
        return record.is_stored or record.is_queued

    async def _free_session(self, instance: Instance, wanted: str | None) -> Chosen:
        """Return the session to post to. Raises `InstanceError`: there is none, or it took too long to find out."""
        try:
            async with asyncio.timeout(max(RECORD_WITHIN, self._timeout)):
                chosen = await self.sessions.to_drive(instance, wanted)
                await self._check_free(instance, chosen.session.id)
        except TimeoutError:
            raise Unresponsive(f"the records of {instance.quoted} did not come in time; nothing was sent") from None
        return chosen

    async def _check_free(self, instance: Instance, session_id: str) -> None:
        if instance.state.family_busy(session_id):
            # That it ended may have been told and lost.
            await instance.refresh()
        if instance.state.family_busy(session_id) or session_id in instance.posting:
            raise Refused(self._busy(instance, session_id))

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
            doing = "it has accepted a message and not begun with it"
        else:
            doing = "it is thinking"
        return (
            f"{instance.quoted} is busy in session {session_id} ({doing}); nothing was sent. Wait (`read` shows how "
            f"far it is), stop it with abort=true, or send with session={NEW_SESSION!r} to work beside it"
        )

    # -- stopping ------------------------------------------------------------------------------------------------

    async def stop(self, instance: Instance, wanted: str | None) -> str | None:
        """Stop what runs and confirm that it stopped; return the stopped session's id, None if nothing ran.

        Raises:
            Refused: several sessions run and `wanted` names none, or it still runs.
        """
        await instance.refresh()
        roots = instance.state.busy_roots()
        if wanted and wanted != NEW_SESSION:
            session = await self.sessions.named(instance, wanted)
            root = instance.state.root_of(session.id)
            roots = [root] if root in roots else []
        if not roots:
            return None
        if len(roots) > 1:
            titles = "; ".join(self._titled(instance, root) for root in roots)
            raise Refused(
                f"{instance.quoted} runs several sessions: {titles}. Say which with `session`; nothing was stopped"
            )
        await self._stop_root(instance, roots[0])
        return roots[0]

    async def _stop_root(self, instance: Instance, root: str) -> None:
        left_over = instance.state.pending_asks(root)
        quiet = 0
        give_up = time.monotonic() + STOP_TIMEOUT
        while quiet < STOP_QUIET_LOOKS:
            if instance.state.family_busy(root):
                quiet = 0
                await instance.agent.interrupt(root)
            else:
                quiet += 1
            if time.monotonic() > give_up:
                raise Refused(f"{instance.quoted} was told to stop session {root} and still runs it; try again")
            await asyncio.sleep(STOP_LOOK_INTERVAL)
            await instance.refresh()
        # OpenCode goes on listing the asks of a stopped turn; they would come up again in the next one.
        for ask in left_over:
            with suppress(InstanceError, Refused):
                await self._settler.settle(instance, ask, REJECT)

    def _titled(self, instance: Instance, session_id: str) -> str:
        session = instance.state.sessions.get(session_id)
        return f"{session_id} ({quote(session.title, 60)})" if session else session_id

    # -- settling asks ---------------------------------------------------------------------------------------------

    async def asks(self, instance: Instance) -> list[Ask]:
        """Return what the instance waits for; see `Settler.asks`."""
        return await self._settler.asks(instance)

    async def open_ask(self, instance: Instance, ask_id: str) -> Ask:
        """Return an ask that waits right now; see `Settler.open_ask`."""
        return await self._settler.open_ask(instance, ask_id)

    async def reply(
        self, instance: Instance, ask_id: str, answer: str | list[str], on_text: OnText, is_seen: IsSeen
    ) -> Outcome:
        """Settle one ask and follow its turn; see `Settler.reply`."""
        return await self._settler.reply(instance, ask_id, answer, on_text, is_seen)

    async def reply_to_several(
        self, instance: Instance, ask_ids: Sequence[str], answer: str | list[str], on_text: OnText, is_seen: IsSeen
    ) -> Replies:
        """Settle several asks and follow their turns, once; see `Settler.reply_to_several`."""
        return await self._settler.reply_to_several(instance, ask_ids, answer, on_text, is_seen)
