"""How much of something one party may take: so much at once, and so much a second after that."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Bucket:
    """Holds `size` of something at first, and is refilled by `per_second`."""

    def __init__(self, size: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._per_second = per_second
        self._clock = clock
        self._left = float(size)
        self._at = clock()

    def take(self, count: int = 1) -> bool:
        """Take `count`, if there are as many."""
        if not self.holds(count):
            return False
        self._left -= count
        return True

    def holds(self, count: int = 1) -> bool:
        """Whether there are `count`; more than the size never are."""
        self._refill()
        return self._left >= count

    def borrow(self) -> float:
        """Take one in any case; return after how many seconds it would have been there."""
        self._refill()
        self._left -= 1
        return max(0.0, -self._left / self._per_second)

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._size, self._left + (now - self._at) * self._per_second)
        self._at = now
