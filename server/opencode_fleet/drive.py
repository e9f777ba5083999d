"""What a person can have an instance do: send it a prompt, stop it, settle what it asks.

All of it is safe to interrupt: the agent's work goes on when a caller goes away.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import string
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opencode_common.text import one_line, quote
from opencode_fleet.answers import permission_decision, question_answers
from opencode_fleet.errors import InstanceError, NotFound, Refused, Unreachable, Unresponsive
from opencode_fleet.turn import Outcome, Turn
from opencode_fleet.wire import MAX_ASK_SHOWN, Ask, Permission, Question, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.wire import Event

    OnText = Callable[[str], Awaitable[None]]

NEW_SESSION = "new"
"""What to give as a session for a fresh one."""
FRESH_FOR = 60.0
"""Seconds after its last turn for which a session is taken to be as the events told."""
TAKEN_FOR = 10.0
"""Seconds after which a prompt that nobody follows any more no longer holds its session."""
STOP_TIMEOUT = 15.0
STOP_LOOK_INTERVAL = 0.25
STOP_QUIET_LOOKS = 2
"""Looks in a row that must find it idle: a parent may begin one more step when its subagent is stopped."""
_SESSION_ID = re.compile(r"ses_[A-Za-z0-9]{1,76}")
"""What may stand in a URL."""
_BASE62 = string.digits + string.ascii_letters


@dataclass(frozen=True, slots=True)
class Prompt:
    """A message on its way; its ids make it the same prompt however often it is posted."""

    session_id: str
    message_id: str
    part_id: str
    text: str


class Driver:
    """Acts on the instances of a fleet. Times are in seconds."""

    def __init__(self, fleet: Fleet, timeout: float) -> None:
        self._fleet = fleet
        self._timeout = timeout
        self._background: set[asyncio.Task[None]] = set()

    # -- sessions ------------------------------------------------------------------------------------------------

    async def session_to_read(self, instance: Instance, wanted: str | None) -> Session | None:
        """Return the session that `wanted` or the present state means, None where there is none yet.

        Raises:
            Refused, NotFound: `wanted` is not a session of this instance.
        """
        if wanted:
            return await self._named(instance, wanted)
        for session_id in (*instance.state.busy_roots(), *await self._ran_roots(instance)):
            with suppress(NotFound):
                return await instance.api.session(session_id)
        sessions = await instance.api.root_sessions(instance.state.directory, 1)
        return sessions[0] if sessions else None

    async def _named(self, instance: Instance, wanted: str) -> Session:
        if not _SESSION_ID.fullmatch(wanted):
            raise Refused(f"{one_line(wanted, 80)!r} is no session id; `instances` and `read` show them (ses_…)")
        try:
            session = await self._known(instance, wanted)
        except NotFound:
            raise NotFound(
                f"{instance.quoted} has no session {wanted}; `read` without a session shows the newest"
            ) from None
        if session.directory != instance.state.directory:
            raise Refused(f"session {wanted} belongs to another directory than {instance.quoted}'s; nothing was done")
        return session

    async def _known(self, instance: Instance, session_id: str) -> Session:
        """Return a session, from memory if this process ran it just now.

        Else it is fetched: another process that shares the database may have archived it.
        """
        known = instance.state.sessions.get(session_id)
        ran = instance.state.ran.get(session_id)
        if known is not None and ran is not None and time.monotonic() - ran < FRESH_FOR:
            return known
        return await instance.api.session(session_id)

    async def _ran_roots(self, instance: Instance) -> list[str]:
        # What is being posted comes before all that OpenCode has told of: it tells a moment later what runs.
        latest_first = (*instance.posting, *reversed(instance.state.ran))
        roots = dict.fromkeys(instance.state.root_of(session_id) for session_id in latest_first)
        return [root for root in roots if self._fleet.runner_of(root, besides=instance) is None][:5]

    async def _session_to_drive(self, instance: Instance, wanted: str | None) -> Session:
        if wanted and wanted != NEW_SESSION:
            session = await self._named(instance, wanted)
            if session.parent_id is not None:
                raise Refused(
                    f"session {session.id} is a subagent's; send to session {instance.state.root_of(session.id)} "
                    "instead. Nothing was sent"
                )
            runner = self._fleet.runner_of(session.id, besides=instance)
            if runner is not None:
                raise Refused(
                    f"session {session.id} is run by {runner.quoted}; send to {runner.quoted}. Nothing was sent"
                )
            return session
        if wanted is None:
            for root in await self._ran_roots(instance):
                with suppress(NotFound):
                    session = await self._known(instance, root)
                    if not session.is_archived and session.directory == instance.state.directory:
                        return session
            # A session that another living process runs, or was the last to run, is that one's: its screen would
            # show two writers. So is a subagent's, an archived one, one of another directory.
            for session in await instance.api.root_sessions(instance.state.directory, 20):
                if self._fleet.runner_of(session.id, besides=instance) is None:
                    return session
        return await self._create(instance)

    async def _create(self, instance: Instance) -> Session:
        session = await instance.api.create_session(instance.state.directory)
        with suppress(InstanceError):  # a convenience for whoever sits there; nobody may
            await instance.api.show_in_tui(session.id)
        return session

    # -- sending -------------------------------------------------------------------------------------------------

    async def send(self, instance: Instance, message: str, wanted: str | None, on_text: OnText) -> Outcome:
        """Post `message` and follow the turn.

        Raises:
            Refused: the session is busy; nothing was sent.
            InstanceError: it could not be posted; the message says whether it may have arrived.
        """
        session = await self._session_to_drive(instance, wanted)
        if instance.state.family_busy(session.id) or session.id in instance.posting:
            raise Refused(self._busy(instance, session.id))
        prompt_id, part_id = _new_id("msg"), _new_id("prt")
        turn = Turn(instance, session.id, prompt_id, on_text=on_text)
        deadline = time.monotonic() + self._timeout
        with instance.listening(turn.hear):
            instance.posting.add(session.id)
            post = self._in_background(
                self._post(instance, Prompt(session.id, prompt_id, part_id, message), deadline)
            )
            try:
                # Shielded: a caller who goes away must not leave it unknown whether the message was sent.
                await asyncio.shield(post)
                outcome = await turn.follow(deadline - time.monotonic())
            except BaseException:
                self._in_background(self._release(instance, session.id, post))
                raise
            instance.posting.discard(session.id)
            return outcome

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _release(self, instance: Instance, session_id: str, post: asyncio.Task[None]) -> None:
        """Keep the session taken until OpenCode shows it busy: a moment after the prompt, not at once."""
        await asyncio.wait([post])
        busy = asyncio.Event()

        def look(_event: Event | None) -> None:
            if instance.state.is_busy(session_id):
                busy.set()

        with instance.listening(look), suppress(TimeoutError):
            look(None)
            if not post.cancelled() and post.exception() is None:
                async with asyncio.timeout(TAKEN_FOR):
                    await busy.wait()
        instance.posting.discard(session_id)

    async def _post(self, instance: Instance, prompt: Prompt, deadline: float) -> None:
        """Post the prompt once. A post whose answer was lost is looked for before it is posted again."""
        session_id = prompt.session_id
        doubtful = False
        while True:
            try:
                if doubtful and await self._is_stored(instance, session_id, prompt.message_id):
                    return
                await instance.api.prompt(session_id, prompt.message_id, prompt.part_id, prompt.text)
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

    async def _is_stored(self, instance: Instance, session_id: str, prompt_id: str) -> bool:
        try:
            await instance.api.message(session_id, prompt_id)
        except NotFound:
            return False
        return True

    def _busy(self, instance: Instance, session_id: str) -> str:
        live = instance.state.live(session_id)
        asks = instance.state.pending_asks(session_id)
        status = instance.state.statuses.get(session_id)
        if asks:
            doing = "it waits for a person: see `reply`"
        elif status is not None and status.type == "retry":
            doing = f"the model's service failed, it tries again: {quote(status.message, 160)}"
        elif live.tool:
            doing = f"it runs {quote(live.tool, 100)}"
        elif live.text:
            doing = f"it is writing {quote(live.text[-160:], 160)}"
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
            session = await self._named(instance, wanted)
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
                await instance.api.abort(root)
            else:
                quiet += 1
            if time.monotonic() > give_up:
                raise Refused(f"{instance.quoted} was told to stop session {root} and still runs it; try again")
            await asyncio.sleep(STOP_LOOK_INTERVAL)
            await instance.refresh()
        # OpenCode goes on listing the asks of a stopped turn; they would come up again in the next one.
        for ask in left_over:
            with suppress(InstanceError):
                await self._reject(instance, ask, None)

    def _titled(self, instance: Instance, session_id: str) -> str:
        session = instance.state.sessions.get(session_id)
        return f"{session_id} ({quote(session.title, 60)})" if session else session_id

    # -- settling asks ---------------------------------------------------------------------------------------------

    async def asks(self, instance: Instance) -> list[Ask]:
        """Return what the instance waits for right now, fetched anew.

        Raises:
            InstanceError: it did not answer.
        """
        await instance.refresh()
        return instance.state.pending_asks()

    async def reply(self, instance: Instance, ask_id: str, answer: str | list[str], on_text: OnText) -> Outcome:
        """Settle one ask and follow the turn that waits for it.

        Raises:
            Refused: no such ask is open (any more), or the answer does not fit it; nothing was settled.
        """
        ask = next((ask for ask in await self.asks(instance) if ask.id == ask_id.strip()), None)
        if ask is None:
            raise Refused(
                f"{instance.quoted} does not wait for {one_line(ask_id, 80)!r} (any more); `reply` without `ask` "
                "lists what it waits for"
            )
        refusing = isinstance(answer, str) and answer.strip().lower().startswith("reject")
        if ask.size > MAX_ASK_SHOWN and not refusing:
            raise Refused(
                f"{ask.id} is too large to be shown here whole, so it can only be rejected here; settle it on the "
                "machine itself. Nothing was settled"
            )
        root = instance.state.root_of(ask.session_id)
        prompt_id = await self._current_prompt(instance, root)
        turn = Turn(instance, root, prompt_id, on_text=on_text, running=True)
        with instance.listening(turn.hear):
            try:
                await self._settle(instance, ask, answer)
            except NotFound:
                raise Refused(f"{ask.id} was settled by somebody else meanwhile; see `read`") from None
            instance.state.settled(ask.id)
            return await turn.follow(self._timeout)

    async def _current_prompt(self, instance: Instance, root: str) -> str:
        messages = await instance.api.messages(root, 50)
        prompts = [message.info.id for message in messages if message.info.role == "user"]
        return prompts[-1] if prompts else ""

    async def _settle(self, instance: Instance, ask: Ask, answer: str | list[str]) -> None:
        if isinstance(ask, Question):
            if isinstance(answer, str) and answer.strip().lower() == "reject":
                await self._reject(instance, ask, None)
            else:
                await instance.api.reply_question(instance.state.directory, ask.id, question_answers(ask, answer))
            return
        decision, reason = permission_decision(answer)
        if decision == "reject":
            await self._reject(instance, ask, reason)
        else:
            await instance.api.reply_permission(instance.state.directory, ask.id, decision, None)

    async def _reject(self, instance: Instance, ask: Ask, reason: str | None) -> None:
        if isinstance(ask, Permission):
            await instance.api.reply_permission(instance.state.directory, ask.id, "reject", reason)
        else:
            await instance.api.reject_question(instance.state.directory, ask.id)


def _new_id(prefix: str) -> str:
    """Make an id as OpenCode does: the time makes it sort, the rest unique. The same id is the same prompt."""
    ticks = (time.time_ns() // 1_000_000 * 4096 + secrets.randbelow(4096)) % (1 << 48)
    return f"{prefix}_{ticks:012x}" + "".join(secrets.choice(_BASE62) for _ in range(14))
