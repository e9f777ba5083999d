"""Whether the relay lives, by what is heard of it. What was only written into ssh proves nothing.

Any byte is a sign of life: what the launcher asks may have to wait behind the tunnel's data, and its answer with it,
while the way down is clear.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONGEST_SECONDS: Final = 180.0
"""A question to its answer, whatever else is heard: behind 4 MB of the tunnel it waits two minutes at 256 kbit/s."""
_BEAT_LATE_SECONDS: Final = 3.0
"""After the last sign of life of a relay that gives one every two seconds."""
_ANSWER_LATE_SECONDS: Final = 0.5
"""After a question to any relay."""
_PROBE_SECONDS: Final = 3.0
"""What the relay's probe takes if it is in vain."""
_WAY_SECONDS: Final = 1.0
"""There and back on most lines, where no data waits."""


class Liveness:
    """Of one connection. `clock`: monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heard = clock()
        self._asked: float | None = None
        self._has_beaten = False
        self._way: float | None = None
        """The quickest answer of a tunnel that carried: our question's way there and back, and the probe's."""

    def heard(self) -> None:
        """Bytes came."""
        self._heard = self._clock()

    def beat(self) -> None:
        """They were a beat: this is a relay that is heard of every two seconds."""
        self._has_beaten = True

    def carried(self) -> None:
        """Take note that by the answer to the open question the tunnel carries."""
        if self._asked is not None:
            took = self._clock() - self._asked
            self._way = took if self._way is None else min(self._way, took)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """A question is open."""
        self._asked = self._clock()
        try:
            yield
        finally:
            self._asked = None

    def deadline(self, patience: float) -> float:
        """Return when the answer is overdue, if nothing is heard until then. `patience`: seconds of silence."""
        asked = self._heard if self._asked is None else self._asked
        return min(max(asked, self._heard) + patience, asked + _LONGEST_SECONDS)

    def is_late(self) -> bool:
        """Tell whether something should have been heard by now. That is no reason yet to give the line up."""
        now = self._clock()
        if self._has_beaten and now - self._heard > _BEAT_LATE_SECONDS:
            return True
        return self._asked is not None and now - max(self._asked, self._heard) > _ANSWER_LATE_SECONDS

    def is_full(self) -> bool:
        """Tell whether the open question took longer than a probe in vain: it waited behind the tunnel's data.

        So does what OpenCode answers to a probe, which then says nothing. On a long line every answer is late, though
        no data waits; but data that makes a probe vain delays the question by as much as such a probe takes.
        """
        way = min(max(_WAY_SECONDS, self._way or _WAY_SECONDS), _PROBE_SECONDS)
        return self._asked is not None and self._clock() - self._asked > _PROBE_SECONDS + way
