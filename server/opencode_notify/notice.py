"""What outlets carry, and what they say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One message to a person. Texts are cleaned, and quote nothing of the work unless the person wants that."""

    id: str
    """The same whenever it is sent again: a receiver that looks at it shows one."""
    title: str
    body: str = ""
    priority: int = 3
    """From 1, which can wait, to 5; 3 is ordinary."""
    url: str = ""
    """An https page about it, which decides nothing by being fetched; or empty."""
    tag: str = ""
    """What it is about in one word, as `permission`."""
    withdrawn: bool = False
    """Whether all that it told of was settled elsewhere meanwhile."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The outlet has it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The outlet did not take it."""

    reason: str
    """In words, without any secret."""
    retry: bool = True
    """Whether the same may go well later."""
    gone: bool = False
    """Whether this outlet will never take anything again."""


Receipt = Accepted | Failed


class Outlet(Protocol):
    """A way to one person."""

    async def send(self, notice: Notice) -> Receipt:
        """Hand it over."""
        ...

    async def withdraw(self, notice: Notice) -> None:
        """Take back what was handed over, where that is possible."""
        ...
