"""The sessions of many instances in one list: whoever does not answer in time is listed as it was last seen."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from opencode_fleet.errors import InstanceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Session

ANSWER_WITHIN = 8.0
"""Seconds in which all have to tell their sessions: a person waits for the whole list."""
CLOCKS_DIFFER = 86_400.0
"""Seconds to come up to which a time is now, as clocks differ; what is later says nothing, and is listed last."""
ASKED_AT_ONCE = 100
ASKED_OF_ONE_AGENT = 2
"""Instances that are asked at the same time, and of these the directories of one agent: it may hang."""


class Listed(NamedTuple):
    """A session and the instance to reach it by."""

    instance: Instance
    session: Session
    is_old: bool
    """Whether it is only remembered, as its instance did not tell now."""


class SessionList(NamedTuple):
    """What was found."""

    sessions: list[Listed]
    """Newest first."""
    silent: list[Instance]
    """Those that did not tell theirs."""
    more: int
    """How many others were found, at least."""


async def list_sessions(instances: Sequence[Instance], title: str, limit: int) -> SessionList:
    """Return the newest sessions of the instances, with `title` in their titles."""
    slots = asyncio.Semaphore(ASKED_AT_ONCE)
    slots_of = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(ASKED_OF_ONE_AGENT))
    deadline = asyncio.get_running_loop().time() + ANSWER_WITHIN

    async def told(instance: Instance) -> list[Session] | None:
        if not instance.connected.is_set():
            return None
        try:
            async with asyncio.timeout_at(deadline), slots_of[instance.endpoint.name], slots:
                # One more than are shown: it tells that there are more.
                return await instance.agent.sessions(instance.state.directory, limit + 1, title=title)
        except (InstanceError, TimeoutError):
            return None

    answers = await asyncio.gather(*map(told, instances))
    silent = [instance for instance, answer in zip(instances, answers, strict=True) if answer is None]
    found = [
        Listed(instance, session, answer is None)
        for instance, answer in zip(instances, answers, strict=True)
        for session in (_remembered(instance, title) if answer is None else answer)
    ]
    now = time.time()
    listed = sorted(_once(found), key=lambda each: _age(each, now))
    return SessionList(listed[:limit], silent, max(0, len(listed) - limit))


def _remembered(instance: Instance, title: str) -> list[Session]:
    """Return what is known of an instance's sessions without asking it."""
    wanted = title.casefold()
    return [
        session
        for session in instance.state.sessions.values()
        if session.parent_id is None and not session.is_archived and wanted in session.title.casefold()
    ]


def _once(found: Iterable[Listed]) -> list[Listed]:
    """Return each session once: several instances of one person on one machine have the same sessions."""
    best: dict[tuple[str | None, str, str], Listed] = {}
    for each in found:
        endpoint = each.instance.endpoint
        key = endpoint.client, endpoint.hostname, each.session.id
        if key not in best or _nearness(each) > _nearness(best[key]):
            best[key] = each
    return list(best.values())


def _age(listed: Listed, now: float) -> float:
    """Return the seconds since a session was changed, by the clock of its own machine where that is known."""
    instance = listed.instance
    clock = instance.agent.clock if instance.connected.is_set() else None
    age = (clock or now) - listed.session.updated
    return max(age, 0.0) if age > -CLOCKS_DIFFER else math.inf


def _nearness(listed: Listed) -> tuple[bool, bool, float]:
    """Return how well a session is reached by its instance: by the one that runs it, or ran it last."""
    state, session_id = listed.instance.state, listed.session.id
    return not listed.is_old, state.family_busy(session_id), state.ran.get(session_id, 0.0)
