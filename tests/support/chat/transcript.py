"""What was said between a person, a chat client and the server, written so that each run comes to the same text.

What changes from run to run stands there by its first appearance: `s12` and `ses_0a1b…` become `s1` and `ses_1`.
Cursors are left out.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_FENCED: Final = re.compile(r"<(untrusted-[0-9a-f]{12})>\n(.*?)\n</\1>", re.DOTALL)
_QUOTED: Final = re.compile(r"<(untrusted-[0-9a-f]{12})>(.*?)</\1>", re.DOTALL)
_PLAIN: Final = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC"), "2026-12-01 08:00 UTC"),
    (re.compile(r"\b\d+ (?:min|h|days) ago"), "now"),
    (re.compile(r"\bv([12])\.\d+\.\d+"), r"v\1"),
    (re.compile(r"\b[\d,]+ tokens"), "2 tokens"),
    (re.compile(r"https://localhost:\d+"), "https://relay.example.org"),
    (re.compile(r"(?<=Cursor: )\S+"), "…"),
    (re.compile(r'(?<=cursor=")[^"]+'), "…"),
)
_TIME_LINE: Final = re.compile(r"^\[2026-12-01 08:00 UTC\]\n", re.MULTILINE)
_NAMED: Final = (
    # The mark of a random id keeps its kind, as `ses` in `ses_1`.
    (re.compile(r"\b(ses|msg|per|que|form|frm|prt|evt)_[A-Za-z0-9]{6,}"), r"\1_{}"),
    (re.compile(r"\b(s|a|m|u)\d+\b"), r"\1{}"),
    (re.compile(r"\b(p)[0-9a-f]{8}\b"), r"\1{}"),
)


class Tidy:
    """Writes texts so that they are the same in each run, over all that it is given.

    Args:
        places: directories of this machine, and what stands for each.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        # Of two directories the one that is inside the other comes first.
        self._places = sorted(places.items(), key=lambda place: -len(place[0]))
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def text(self, text: str) -> str:
        """Return what a tool answered, or its call, without what differs; delimiters become none, or quotes."""
        text = _QUOTED.sub(r"“\2”", _FENCED.sub(r"\2", text))
        for directory, place in self._places:
            text = text.replace(directory, place)
        for pattern, plain in _PLAIN:
            text = pattern.sub(plain, text)
        if (first := _TIME_LINE.search(text)) is not None:
            # Where a minute ends within a conversation, its time stands there again.
            text = text[: first.end()] + _TIME_LINE.sub("", text[first.end() :])
        for pattern, template in _NAMED:
            text = pattern.sub(partial(self._name, template), text)
        return text

    def call(self, tool: str, arguments: Mapping[str, object]) -> str:
        """Return a call as it would be written in Python."""
        return self.text(written(tool, arguments))

    def _name(self, template: str, found: re.Match[str]) -> str:
        if found[0] not in self._names:
            kind = template.replace(r"\1", found[1])
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._names[found[0]] = kind.format(self._counts[kind])
        return self._names[found[0]]


def written(tool: str, arguments: Mapping[str, object]) -> str:
    """Return a call as it would be written in Python, as it is."""
    return f"{tool}({', '.join(f'{name}={_value(value)}' for name, value in arguments.items())})"


def _value(value: object) -> str:
    return f"[{', '.join(map(_value, value))}]" if isinstance(value, list) else _quoted(value)


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
