"""How a caller settles asks, in words: here, or on the page of whoever started this server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opencode_pages.paths import ASKS_PATH, INBOX_PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LINKS: Final = 5
"""Asks of one answer that have a link each; for more there is the page of all."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What a caller is told of how to settle asks.

    `page`: the base address of the pages; empty where there are none. `is_page_alone`: nothing is settled in the
    chat. `may_always`: whether `always` may be said there.
    """

    page: str = ""
    is_page_alone: bool = False
    may_always: bool = True

    def link(self, handle: str) -> str:
        """Return the address of an ask's page."""
        return f"{self.page}{ASKS_PATH}/{handle}"

    def links(self, handles: Sequence[str]) -> str:
        """Return the addresses of the pages of asks; of many the first, and the page of all."""
        listed = ", ".join(map(self.link, handles[:MAX_LINKS]))
        return f"{listed}; all: {self.page}{INBOX_PATH}" if len(handles) > MAX_LINKS else listed

    def how_to_settle(self, handles: Sequence[str]) -> str:
        """Say how asks with these handles are settled."""
        if self.is_page_alone:
            return (
                f"The person decides on the page alone: {self.links(handles)}\n"
                "Give them the link. `reply` with `ask` and `answer` settles nothing; it waits for what they decide "
                "there, and for the turn."
            )
        words = "once, always or reject" if self.may_always else "once or reject"
        told = (
            f"Show this to the person, and only on their word call `reply` with `ask` and `answer`: {words} "
            "(also `reject: why`) for a permission; a label or text for a question, reject to decline."
        )
        if self.page:
            also = "" if self.may_always else ", where alone `always` is given"
            told += f"\nOr they decide on the page{also}: {self.links(handles)}"
        return told

    def no_always(self) -> str:
        """Say why `always` is refused to this caller; empty where it is not."""
        if self.may_always:
            return ""
        return f"`always` is given on the page alone, with a passkey: {self.page}{INBOX_PATH}; here, answer `once`"

    def not_yet(self, handle: str) -> str:
        """Say that nobody has decided so far."""
        return (
            f"Not decided yet: the person decides at {self.link(handle)}\n"
            "Give them the link, and call `reply` again, or `wait`, to hear what they decided."
        )

    def not_here(self, handles: Sequence[str]) -> str:
        """Say of several asks that they are not settled in the chat."""
        return (
            f"Nothing was settled: the person decides on the page alone: {self.links(handles)}\n"
            "Give them the link; `wait` tells what comes of it."
        )


HERE: Final = Ways()
"""In the chat alone."""
