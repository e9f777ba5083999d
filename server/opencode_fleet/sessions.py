"""Which session a message is for: the one that was named, the one that the agent is at, or a new one."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_common.text import one_line
from opencode_fleet.agent import Capability
from opencode_fleet.errors import InstanceError, NotFound, Refused

if TYPE_CHECKING:
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Message, Session

NEW_SESSION = "new"
"""What to give as a session for a fresh one."""
FRESH_FOR = 60.0
"""Seconds after its last turn for which a session is taken to be as the events told."""
GROWS_WITHIN = 60.0
"""Seconds: an unfinished answer that changed so lately is being written by somebody."""
LOOKS_APART = 2.0
"""Seconds between two looks at an unfinished answer: one that still grows has a writer."""
CANDIDATES = 20
_SESSION_ID = re.compile(r"ses_[A-Za-z0-9]{1,76}")
"""What may stand in a URL."""


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
        """Return the session of that id.

        Raises:
            Refused, NotFound: it is not one of this instance.
        """
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

    async def to_drive(self, instance: Instance, wanted: str | None) -> Session:
        """Return the session to post a message to, which is made if need be.

        Raises:
            Refused: another process runs the one that is wanted, or it is a subagent's.
            InstanceError: see `errors`.
        """
        if wanted and wanted != NEW_SESSION:
            return await self._wanted(instance, wanted)
        if wanted is None:
            for root in self._ran_roots(instance):
                with suppress(NotFound):
                    session = await self._known(instance, root)
                    if not session.is_archived and session.directory == instance.state.directory:
                        return session
            # A session that another living process runs, or was the last to run, is that one's: its screen would
            # show two writers. So is a subagent's, an archived one, one of another directory.
            for session in await instance.agent.sessions(instance.state.directory, CANDIDATES):
                runner = self._fleet.runner_of(session.id, besides=instance)
                if runner is None and not await self._is_written_elsewhere(instance, session.id):
                    return session
        return await self._create(instance)

    async def _wanted(self, instance: Instance, wanted: str) -> Session:
        session = await self.named(instance, wanted)
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
        if await self._is_written_elsewhere(instance, session.id):
            raise Refused(
                f"session {session.id} is being run by another OpenCode on that machine; nothing was sent. Wait for "
                f"its end (`read` shows how far it is), or send with session={NEW_SESSION!r} to work beside it"
            )
        return session

    async def _is_written_elsewhere(self, instance: Instance, session_id: str) -> bool:
        """Whether a process that is not in the fleet writes into it: sessions are shared, what runs is not."""
        state = instance.state
        if state.family_busy(session_id) or session_id in instance.posting:
            return False  # here, that is
        ran = state.ran.get(session_id)
        if ran is not None and time.monotonic() - ran < LOOKS_APART:
            return False  # its own record may still be completed
        unfinished = await self._unfinished(instance, session_id)
        if unfinished is None:
            return False
        if time.time() - _changed(unfinished) < GROWS_WITHIN and not _is_ours(instance, session_id):
            return True
        await asyncio.sleep(LOOKS_APART)
        again = await self._unfinished(instance, session_id)
        return again is not None and again != unfinished and not state.family_busy(session_id)

    async def _unfinished(self, instance: Instance, session_id: str) -> Message | None:
        messages = await instance.agent.messages(session_id, 2)
        newest = messages[-1] if messages else None
        if newest is None or newest.role != "assistant" or newest.completed is not None or newest.error:
            return None
        return newest

    async def _known(self, instance: Instance, session_id: str) -> Session:
        """Return a session, from memory if this process ran it just now.

        Else it is fetched: another process that shares the database may have archived it.
        """
        known = instance.state.sessions.get(session_id)
        ran = instance.state.ran.get(session_id)
        if known is not None and ran is not None and time.monotonic() - ran < FRESH_FOR:
            return known
        return await instance.agent.session(session_id)

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


def _changed(message: Message) -> float:
    """Return when the message was last seen to change, as far as it tells (epoch seconds)."""
    return max([message.created, *(part.changed for part in message.parts)])


def _is_ours(instance: Instance, session_id: str) -> bool:
    """Whether this instance's agent itself ran the session: then an unfinished answer is what an end left behind."""
    return session_id in instance.state.ran
