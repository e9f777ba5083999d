"""What one client may take of what all share: messages, renames, lines of the journal."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from opencode_common.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

NAMELESS: Final = ""
"""For the journal: who has not said, or not proved, which client it is."""
_LINES: Final = 200
"""At once: the largest block's instances, all of which go and come back, write 192."""
_LINES_PER_MINUTE: Final = 12.0
_COUNT_SECONDS: Final = 60.0


class ClientLog:
    """Writes the lines that clients can provoke: so many of each, so that none can drown the others' in its own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shares: dict[str, Bucket] = {}
        self._left_out: dict[str, int] = {}
        self._counted_at = clock()

    def write(self, level: int, client: str, text: str, *values: object) -> None:
        """Log this about `client`, or count it."""
        if client not in self._shares:
            self._shares[client] = Bucket(_LINES, _LINES_PER_MINUTE / 60, self._clock)
        if self._shares[client].take():
            log.log(level, text, *values)
        else:
            self._left_out[client] = self._left_out.get(client, 0) + 1

    def count(self, *, at_once: bool = False) -> None:
        """Say how many lines were left out, once a minute, however often it is called."""
        if not at_once and self._clock() - self._counted_at < _COUNT_SECONDS:
            return
        self._counted_at = self._clock()
        for client, lines in self._left_out.items():
            who = f"client {client}" if client != NAMELESS else "connections without a name"
            log.warning("%s: %d more lines about it were left out of this journal", who, lines)
        self._left_out.clear()
