"""Turns that went idle in the middle of an answer: somebody stopped them, or they failed, and a word on it follows.

OpenCode 1 tells that a session is idle before it tells why. So the end of such a turn waits a moment for that word.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from opencode_fleet.events import AnswerChanged

HELD_FOR: Final = 1.5
"""Seconds that the word may take."""
MAX_KNOWN: Final = 2_000


class TurnProblem(NamedTuple):
    """Why a turn did not end well."""

    why: str
    is_over: bool = False
    """Whether the turn has ended."""
    is_stopped: bool = False
    """Whether it did not fail, but was stopped."""


class Cuts:
    """The sessions in the middle of an answer, by instance and session."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()
        """Since when (monotonic seconds) the end of each is held back; 0: it is not."""

    def hear(self, instance: str, event: AnswerChanged) -> None:
        """Take that an answer goes on or is over."""
        key = instance, event.session_id
        if event.ended not in {"", "for-tools"}:
            if not self._known.get(key):
                self._known.pop(key, None)
            return
        self._known.setdefault(key, 0.0)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def hold(self, instance: str, session: str) -> bool:
        """Hold the end of an idle session's turn back, if it needs that; return whether it is to wait still."""
        key = instance, session
        since = self._known.get(key)
        if since is None:
            return False
        if not since:
            since = self._known[key] = time.monotonic()
        return time.monotonic() - since < HELD_FOR

    def is_held(self, instance: str, session: str) -> bool:
        """Whether the end of its turn was held back, and is not told yet."""
        return self._known.get((instance, session), 0.0) > 0

    def holds_any(self, instance: str) -> bool:
        """Whether any end of an instance is held back."""
        return any(since and name == instance for (name, _), since in self._known.items())

    def over(self, instance: str, session: str) -> None:
        """Take that the end is told."""
        self._known.pop((instance, session), None)
