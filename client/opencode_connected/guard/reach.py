"""Which directories and sessions may be seen, as the policy is now and as the agent says where its sessions are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from opencode_connected.guard.apis import api_of
from opencode_connected.guard.bodies import is_id
from opencode_connected.guard.refusals import NOT_OPENED, AgentUnavailable, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_connected.guard.calls import GuardedCalls
    from opencode_connected.guard.policy import Policy

T = TypeVar("T")

_MAX_SESSIONS = 10_000
_MAX_DIRECTORIES = 1_000
_SESSION_SECONDS = 60.0
"""For which a session is taken to be where it was: people seldom move one, and events tell at once."""
_DIRECTORY_SECONDS = 5.0
"""For which a directory is taken to be what it was: asking the file system for each event would cost more."""


class GuardedReach:
    """What may be seen of one agent (see `routes.Reach`)."""

    def __init__(self, calls: GuardedCalls, policy: Callable[[], Policy]) -> None:
        self._calls = calls
        self._current = policy
        self._policy: Policy | None = None
        self._directories: dict[str, tuple[float, bool]] = {}
        self._sessions: dict[str, tuple[float, str]] = {}

    def policy(self) -> Policy:
        """Return the policy as it is now."""
        policy = self._current()
        if policy != self._policy:
            self._policy = policy
            self._directories.clear()
        return policy

    def allows(self, directory: object) -> bool:
        """Tell whether what somebody calls a directory is one that may be seen."""
        if not isinstance(directory, str):
            return False
        policy = self.policy()
        now = time.monotonic()
        known = self._directories.get(directory)
        if known is not None and known[0] > now:
            return known[1]
        allowed = policy.allows(directory)
        _remember(self._directories, directory, (now + _DIRECTORY_SECONDS, allowed), _MAX_DIRECTORIES)
        return allowed

    def require(self, directory: object) -> None:
        """Refuse a directory that may not be seen."""
        if not self.allows(directory):
            raise RequestRefused("directory", NOT_OPENED)

    async def sees(self, session_id: str) -> bool:
        """Tell whether the session is one of a directory that may be seen; one that is gone is not."""
        return self.allows(await self.directory(session_id))

    async def directory(self, session_id: str) -> str | None:
        """Return the directory of a session; None if there is no such session.

        Raises:
            Unavailable: the agent cannot be asked.

        """
        known = self._sessions.get(session_id)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        if not is_id(session_id):
            return None
        api = api_of((await self._calls.target()).generation)
        status, answer = await self._calls.fetch(api.session.replace("{session}", session_id), is_emptied=True)
        directory = api.session_directory(answer) if status == 200 else None
        if directory is not None:
            fresh = (time.monotonic() + _SESSION_SECONDS, directory)
            _remember(self._sessions, session_id, fresh, _MAX_SESSIONS)
        elif status not in (400, 404):
            raise AgentUnavailable("OpenCode does not say where that session is: try again")
        return directory

    def forget(self, session_id: str) -> None:
        """Ask anew where a session is, the next time."""
        self._sessions.pop(session_id, None)


def _remember(store: dict[str, T], key: str, value: T, limit: int) -> None:
    store.pop(key, None)
    if len(store) >= limit:
        del store[next(iter(store))]
    store[key] = value
