"""How much of a long conversation is asked for at once: a page that takes so long that nothing else waits for it."""

from __future__ import annotations

from typing import Final

PAGE_SECONDS: Final = 2.0
"""That one page may take: events and the answers of others queue behind it on the line."""
FIRST_PAGE: Final = 5
_GROWTH: Final = 4


class PageSize:
    """The number of entries that a page of one agent's may have, by the pace at which those before came."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._size = min(FIRST_PAGE, largest)

    def of(self, wanted: int) -> int:
        """Return how many to ask for, of those that are wanted still."""
        return max(1, min(wanted, self._size))

    def took(self, count: int, seconds: float) -> None:
        """Hear that a page of `count` entries took so long."""
        if count:
            fitting = int(count * PAGE_SECONDS / max(seconds, 0.001))
            self._size = max(1, min(fitting, max(self._size, count) * _GROWTH, self._largest))

    def was_too_large(self, count: int) -> None:
        """Hear that `count` entries were more than an answer may have."""
        self._size = max(1, count // _GROWTH)
