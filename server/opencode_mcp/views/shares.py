"""Room in an answer, shared among machines: one that has much to show must not crowd out the others."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from opencode_common.text import quote_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NAMED: Final = 5
"""Of whom it is said how much is left out; of more it is said how many they are."""


def in_turns(machines: Sequence[str]) -> list[int]:
    """Return the places of things, given by the machine of each, so that the machines take turns.

    The things of one machine stay in order. Whoever has room for `n` shows `sorted(in_turns(…)[:n])`.
    """
    before = Counter[str]()
    turns = []
    for place, machine in enumerate(machines):
        turns.append((before[machine], place))
        before[machine] += 1
    return [place for _, place in sorted(turns)]


def counted(names: Iterable[str]) -> str:
    """Say how often each name stands there, the most frequent first, like `“laptop” 12, “desktop” 3`."""
    told = Counter(names).most_common()
    said = ", ".join(f"{quote_name(name)} {count}" for name, count in told[:_NAMED])
    return f"{said}, {len(told) - _NAMED} others" if len(told) > _NAMED else said
