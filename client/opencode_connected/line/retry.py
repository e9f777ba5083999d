"""When to try the line again."""

from __future__ import annotations

import random
import time
from typing import Final

_FIRST_SECONDS: Final = (0.02, 0.2)
"""What broke a line is often over already. Spread, as a relay that restarts loses all its clients at once."""
_SOON_SECONDS: Final = (0.25, 0.45)
_SOON_FOR_SECONDS: Final = 60.0
_LONGEST_SECONDS: Final = 15.0
_PERMANENT_SECONDS: Final = 60.0
"""Where a person has to act first."""


class RetrySchedule:
    """Soon at first, then ever more seldom. `reset` it, or `hurry`, when there is a new reason for hope."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._doubled = 0
        self._is_in_a_hurry = False

    def reset(self) -> None:
        """Begin anew: a line held for a while."""
        self._began = None
        self._doubled = 0

    def hurry(self) -> None:
        """Begin anew, and at once: the network changed, for this machine alone."""
        self.reset()
        self._is_in_a_hurry = True

    def delay(self, *, permanent: bool) -> float:
        """Return the seconds to wait after a failure; `permanent`: one that only a person can mend."""
        if self._is_in_a_hurry:
            self._is_in_a_hurry = False
            return 0
        if permanent:
            return _PERMANENT_SECONDS
        now = time.monotonic()
        if self._began is None:
            self._began = now
            return random.uniform(*_FIRST_SECONDS)  # noqa: S311 # spreads load, guards nothing
        if now - self._began < _SOON_FOR_SECONDS:
            return random.uniform(*_SOON_SECONDS)  # noqa: S311 # as above
        self._doubled = min(self._doubled + 1, 10)
        longest = min(_LONGEST_SECONDS, 2.0 ** (self._doubled - 1))
        return random.uniform(0.8 * longest, longest)  # noqa: S311 # as above
