"""What is told, by what, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

LOWEST = 1
NORMAL = 3
HIGHEST = 5


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What a person is told.

    Args:
        id: the event, as `a3.open`; the same again for a repeat, so that a receiver can show one.
        title: one line.
        body: text; what is too long for an outlet is cut there, visibly.
        priority: 1 (lowest) to 5 (highest), as ntfy has them.
        url: https address of the page to open, or '': never one that decides when it is fetched.
        tag: a notice takes the place of an earlier one with the same tag; '' stands for the id. It should say whose
            relay it is if several share an outlet.
        withdrawn: settled elsewhere: what was shown under this tag is to go.
    """

    id: str
    title: str
    body: str = ""
    priority: int = NORMAL
    url: str = ""
    tag: str = ""
    withdrawn: bool = False

    def __post_init__(self) -> None:
        """Refuse a notice that no outlet could send. Raises `ValueError`."""
        if not self.id or not self.title:
            raise ValueError("a notice needs an id and a title")
        if not LOWEST <= self.priority <= HIGHEST:
            raise ValueError(f"a notice has a priority from {LOWEST} to {HIGHEST}, not {self.priority}")

    @property
    def place(self) -> str:
        """What a later notice must have, too, to take the place of this one."""
        return self.tag or self.id


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What came of a notice at an outlet.

    Args:
        accepted: the outlet took it over; whether anybody saw it is not known by that.
        reason: why not, in words for the person, with the next step; holds no secret, and no word of the outlet's.
        retry: the same notice may succeed later. It may have arrived all the same: its repeat has the same id.
        gone: the outlet is no more, and can be forgotten.
        retry_after: seconds until it should be tried again, if the outlet said so, at most a day.
    """

    accepted: bool
    reason: str = ""
    retry: bool = False
    gone: bool = False
    retry_after: float | None = None

    @classmethod
    def of_failure(
        cls, reason: str, *, retry: bool = False, gone: bool = False, retry_after: float | None = None
    ) -> Self:
        """Return the receipt of a notice that was not taken."""
        return cls(accepted=False, reason=reason, retry=retry, gone=gone, retry_after=retry_after)


ACCEPTED = Receipt(accepted=True)


class Outlet(Protocol):
    """One way to reach one person. Holds nothing between two notices, so it may be made anew for each."""

    async def send(self, notice: Notice) -> Receipt:
        """Send a notice, or take it back if it is withdrawn. Ends within seconds, and raises nothing."""

    async def withdraw(self, notice: Notice) -> None:
        """Take back what was shown of a notice, where the outlet can; otherwise do nothing."""
