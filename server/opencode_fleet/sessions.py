"""Which session a message is for: the one that was named, the one that the agent is at, or a new one."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from opencode_common.text import one_line, quote
from opencode_fleet.agent import Capability
from opencode_fleet.errors import BadAnswer, Busy, InstanceError, NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Message, Session

NEW_SESSION = "new"
"""What to give as a session for a fresh one."""
FRESH_FOR = 60.0
"""Seconds after its last turn for which a session is taken to be as the events told."""
GROWS_WITHIN = 60.0
"""Seconds, by the clock of the agent's machine: an unfinished answer that changed so lately has a writer."""
LOOKS_APART = 2.0
"""Seconds between two looks at a turn that has not ended: one that goes on has a writer."""
CANDIDATES = 20
SEARCHED = 100
"""A directory's newest sessions, among whose titles words are looked for."""
MIN_WORDS = 4
"""Characters of a title's words: fewer fit by accident."""
MAX_NAMED = 8
"""Sessions that a refusal lists."""
_ID_PREFIX = "ses_"
_SESSION_ID = re.compile(r"ses_[A-Za-z0-9]{1,76}")
"""What may stand in a URL."""


class Chosen(NamedTuple):
    """The session that a message is for, as it is now."""

    session: Session
    note: str = ""
    """What the person should know of the choice."""


class _Seen(NamedTuple):
    """A session and its newest message, as they are now: another process may have changed either."""

    session: Session
    newest: Message | None
    """None too where it cannot be had, or the agent itself runs the session: nothing needs to be found out then."""


class Sessions:
    """Chooses among the sessions of a fleet's instances."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def to_read(self, instance: Instance, wanted: str | None) -> Session | None:
        """Return the session that `wanted` or the present state means, None where there is none yet.

        Raises:
            Refused, NotFound: `wanted` is not a session of this instance.
        """
        if wanted:
            return await self.named(instance, wanted)
        for session_id in (*instance.state.busy_roots(), *self._ran_roots(instance)):
            with suppress(NotFound):
                return await instance.agent.session(session_id)
        sessions = await instance.agent.sessions(instance.state.directory, 1)
        return sessions[0] if sessions else None

    async def named(self, instance: Instance, wanted: str) -> Session:
        """Return the session of that id or of those words, from memory if this process ran it just now.

        Raises:
            Refused, NotFound: it is not one of this instance.
        """
        wanted = await self._meant(instance, wanted)
        with _naming(instance, wanted):
            known, ran = instance.state.sessions.get(wanted), instance.state.ran.get(wanted)
            is_fresh = ran is not None and time.monotonic() - ran < FRESH_FOR
            session = known if known is not None and is_fresh else await instance.agent.session(wanted)
        _check_directory(instance, session)
        return session

    async def to_drive(self, instance: Instance, wanted: str | None) -> Chosen:
        """Return the session to post a message to, which is made if need be.

        Raises:
            Busy: another process runs the one that is wanted.
            Refused: it is a subagent's, or there is none such.
            InstanceError: see `errors`.
        """
        if wanted == NEW_SESSION:
            return Chosen(await self._create(instance))
        wanted = await self._meant(instance, wanted) if wanted else None
        seen = await self._wanted(instance, wanted) if wanted else await self._at_hand(instance)
        if seen is None:
            return Chosen(await self._create(instance))
        session, newest = seen
        if newest is None or not await self._is_written_elsewhere(instance, session.id, newest):
            return Chosen(session)
        if wanted:
            raise Busy(
                f"session {session.id} is being run by another OpenCode on that machine; nothing was sent. Wait for "
                f"its end (`read` shows how far it is), or send with session={NEW_SESSION!r} to work beside it"
            )
        note = f"session {session.id} is being run by another OpenCode on that machine, so a new one was begun"
        return Chosen(await self._create(instance), note)

    async def check_ours(self, instance: Instance, session_id: str) -> None:
        """Refuse what would be done to a session in which a process works that is not in the fleet.

        Raises:
            Refused: as it says; nothing was done.
        """
        newest = await self._newest(instance, session_id)
        if newest is not None and await self._is_written_elsewhere(instance, session_id, newest):
            raise Refused(
                f"session {session_id} is being run by another OpenCode on that machine, which alone can stop it; "
                "nothing was done. Wait for its end (`read` shows how far it is), or stop it there"
            )

    async def _meant(self, instance: Instance, wanted: str) -> str:
        """Return the id that `wanted` is, or the id of the one session whose title has all of its words.

        A title that is just these words comes before those that have more.

        Raises:
            Refused: there is no such session, or there are several; the message lists them.
        """
        if wanted.startswith(_ID_PREFIX):
            return wanted
        words = wanted.casefold().split()
        if len("".join(words)) < MIN_WORDS:
            raise Refused(
                f"{one_line(wanted, 80)!r} is no session id (ses_…), and too short for words of a title: give at "
                f"least {MIN_WORDS} characters, or {NEW_SESSION!r}. Nothing was done"
            )
        known = await instance.agent.sessions(instance.state.directory, SEARCHED)
        found = [session for session in known if all(word in session.title.casefold() for word in words)]
        exact = [session for session in found if session.title.casefold().split() == words]
        if len(exact) == 1 or len(found) == 1:
            return (exact or found)[0].id
        which = "fits several sessions" if found else "is in no session's title"
        listed = _listed(found or known, instance.agent.clock or time.time())
        raise Refused(
            f"{one_line(wanted, 80)!r} {which} of {instance.quoted}: {listed}. Say which by its id; nothing was done"
        )

    async def _wanted(self, instance: Instance, wanted: str) -> _Seen:
        with _naming(instance, wanted):
            seen = await self._look(instance, wanted)
        _check_directory(instance, seen.session)
        if seen.session.parent_id is not None:
            raise Refused(
                f"session {wanted} is a subagent's; send to session {instance.state.root_of(wanted)} "
                "instead. Nothing was sent"
            )
        runner = self._fleet.runner_of(wanted, besides=instance)
        if runner is not None:
            raise Refused(f"session {wanted} is run by {runner.quoted}; send to {runner.quoted}. Nothing was sent")
        return seen

    async def _at_hand(self, instance: Instance) -> _Seen | None:
        """Return the session that the instance is at, else the newest that is nobody else's; None: there is none."""
        for root in self._ran_roots(instance):
            with suppress(NotFound):
                seen = await self._look(instance, root)
                if not seen.session.is_archived and seen.session.directory == instance.state.directory:
                    return seen
        # A session that another living process runs, or was the last to run, is that one's: its screen would
        # show two writers. So is a subagent's, an archived one, one of another directory.
        for session in await instance.agent.sessions(instance.state.directory, CANDIDATES):
            if self._fleet.runner_of(session.id, besides=instance) is None:
                return _Seen(session, await self._newest(instance, session.id))
        return None

    async def _look(self, instance: Instance, session_id: str) -> _Seen:
        session, newest = await asyncio.gather(instance.agent.session(session_id), self._newest(instance, session_id))
        return _Seen(session, newest)

    async def _newest(self, instance: Instance, session_id: str) -> Message | None:
        if _runs_here(instance, session_id):
            return None
        try:
            messages = await instance.agent.messages(session_id, 1)
        except BadAnswer:  # as one that is too large: it tells nothing, and must not keep the session from use
            return None
        return messages[-1] if messages else None

    async def _is_written_elsewhere(self, instance: Instance, session_id: str, newest: Message) -> bool:
        """Whether a process that is not in the fleet writes into it: sessions are shared, what runs is not."""
        # What this agent's own events told of is its own: if it does not run now, an end has left it behind.
        if not _goes_on(newest) or instance.state.has_told(session_id, newest.id):
            return False
        if not _is_fresh(newest, instance.agent.clock):
            await asyncio.sleep(LOOKS_APART)
            again = await self._newest(instance, session_id)
            if again is None or again == newest:
                return False
        # It may have begun here this very moment, which is told a little later.
        await instance.refresh()
        return not (_runs_here(instance, session_id) or instance.state.has_told(session_id, newest.id))

    def _ran_roots(self, instance: Instance) -> list[str]:
        # What is being posted comes before all that the agent has told of: it tells a moment later what runs.
        latest_first = (*instance.posting, *reversed(instance.state.ran))
        roots = dict.fromkeys(instance.state.root_of(session_id) for session_id in latest_first)
        return [root for root in roots if self._fleet.runner_of(root, besides=instance) is None][:5]

    async def _create(self, instance: Instance) -> Session:
        session = await instance.agent.create(instance.state.directory)
        if instance.can(Capability.SCREEN):
            with suppress(InstanceError):  # a convenience for whoever sits there; nobody may
                await instance.agent.show(session)
        return session


def _listed(sessions: list[Session], now: float) -> str:
    """Return the newest of the sessions with title and age; `now` is of their own machine's clock."""
    if not sessions:
        return "it has none"
    shown = [
        f"{session.id} {quote(session.title, 60)}, {_age(now - session.updated)} old"
        for session in sessions[:MAX_NAMED]
    ]
    more = len(sessions) - MAX_NAMED
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def _age(seconds: float) -> str:
    """Return how long ago something was, in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "less than 1 min"


@contextmanager
def _naming(instance: Instance, wanted: str) -> Iterator[None]:
    """Refuse what is no session's id, and say which one it was that the instance does not have."""
    if not _SESSION_ID.fullmatch(wanted):
        raise Refused(f"{one_line(wanted, 80)!r} is no session id; `instances` and `read` show them (ses_…)")
    try:
        yield
    except NotFound:
        raise NotFound(
            f"{instance.quoted} has no session {wanted}; `read` without a session shows the newest"
        ) from None


def _check_directory(instance: Instance, session: Session) -> None:
    if session.directory != instance.state.directory:
        raise Refused(f"session {session.id} belongs to another directory than {instance.quoted}'s; nothing was done")


def _runs_here(instance: Instance, session_id: str) -> bool:
    return instance.state.family_busy(session_id) or session_id in instance.posting


def _goes_on(newest: Message) -> bool:
    """Whether a session whose newest message it is may be in the middle of a turn."""
    if newest.role != "assistant":
        return newest.role == "user"
    return not newest.error and (newest.completed is None or newest.ended in {"for-tools", "broken"})


def _is_fresh(newest: Message, clock: float | None) -> bool:
    """Whether an unfinished answer changed just now, as far as it tells; `clock`: the time on its own machine."""
    if newest.role != "assistant" or newest.completed is not None or clock is None:
        return False
    changed = max([newest.created, *(part.changed for part in newest.parts)])
    return abs(clock - changed) < GROWS_WITHIN
