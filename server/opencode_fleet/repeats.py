"""Calls that were cut off, so that the same call again takes up their turn instead of starting another."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from opencode_fleet.choices import Manner

if TYPE_CHECKING:
    from opencode_fleet.model import Prompt

REMEMBERED_FOR = 600.0
"""Seconds after which the same words are meant anew: chat clients repeat a call within a minute or two."""
MAX_REMEMBERED = 200


class Call(NamedTuple):
    """What makes two calls of `send` the same."""

    instance: str
    session: str | None
    message: str
    manner: Manner = Manner()


class Repeats:
    """The calls whose callers went away before they had the answer."""

    def __init__(self) -> None:
        self._cut: OrderedDict[Call, tuple[float, Prompt]] = OrderedDict()

    def cut(self, call: Call, prompt: Prompt) -> None:
        """Remember that the caller went away, and what was sent."""
        self._cut[call] = time.monotonic(), prompt
        self._cut.move_to_end(call)
        while len(self._cut) > MAX_REMEMBERED:
            self._cut.popitem(last=False)

    def take(self, call: Call) -> Prompt | None:
        """Return what was sent for the same call, if that was cut off lately; it is forgotten then."""
        at, prompt = self._cut.pop(call, (0.0, None))
        return prompt if time.monotonic() - at < REMEMBERED_FOR else None
