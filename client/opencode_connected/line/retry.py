"""When to try the line again."""

from __future__ import annotations

import random
import time
from typing import Final

_FIRST_SECONDS: Final = (0.02, 0.2)
"""What broke a line is often over already. Spread, as a relay that restarts loses all its clients at once."""
_SOON_SECONDS: Final = 0.45
_LONGEST_SECONDS: Final = 15.0
_SHARE: Final = 1 / 60
"""Of the time that the relay has been away: so much longer it seems to be away, at most."""
_SPREAD: Final = (0.55, 1.0)
"""Of a pause. Clients that were lost together are evenly mixed after a few tries."""
_PERMANENT_SECONDS: Final = 60.0
"""Where a person has to act first."""


class RetrySchedule:
    """Soon at first, then the more seldom the longer it takes. `reset` it, or `hurry`, when there is new hope."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._is_in_a_hurry = False

    def reset(self) -> None:
        """Begin anew: a line held for a while."""
        self._began = None

    def hurry(self) -> None:
        """Begin anew, and at once: the network changed, for this machine alone."""
        self.reset()
        self._is_in_a_hurry = True

    def delay(self, *, permanent: bool, took: float = 0.0, least: float = 0.0) -> float:
        """Return the seconds to wait after a failure.

        `permanent`: one that only a person can mend. `took`: the seconds that the try took, which are part of the
        pause: one that was in vain for 5 s has hammered at nothing. `least`: of the pause from one try's beginning to
        the next one's, where a try costs the relay a log-in.
        """
        if self._is_in_a_hurry:
            self._is_in_a_hurry = False
            return 0
        if permanent:
            return _PERMANENT_SECONDS
        first = random.uniform(*_FIRST_SECONDS)  # noqa: S311 # spreads load, guards nothing
        now = time.monotonic()
        if self._began is None:
            self._began = now
            return first
        longest = min(_LONGEST_SECONDS, max(_SOON_SECONDS, least, (now - self._began) * _SHARE))
        return max(first, longest * random.uniform(*_SPREAD) - took)  # noqa: S311 # as above
