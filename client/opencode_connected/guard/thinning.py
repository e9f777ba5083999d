"""What of OpenCode's answers and events goes through the tunnel: what the server reads of them, and nothing twice.

A shape says what is kept. What is left out is read by nobody at the other end, so that what comes out means the same
there, to a server of any version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections import OrderedDict

Shape = Mapping[str, Any] | Callable[[Any], object] | None
"""Of an object the keys that are kept, each with the shape of what it holds; or what makes it; None: all of it."""

WHOLE: Final = None
"""The shape of what is kept as it is."""
MAX_REMEMBERED: Final = 1_000
"""Of each kind and stream; the oldest go first."""
MAX_ARGUMENT: Final = 2_000
MAX_OUTPUT: Final = 4_000
"""Characters of an argument's beginning and of an output's end; of either `read` shows less."""


def keys(*names: str) -> dict[str, None]:
    """Return the shape of an object of which these keys are kept, whatever they hold."""
    return dict.fromkeys(names)


def each(shape: Shape) -> Callable[[object], object]:
    """Return the shape of a list whose entries are of `shape`."""
    return lambda value: [kept(entry, shape) for entry in value] if isinstance(value, list) else value


def kept(value: object, shape: Shape) -> object:
    """Return what `shape` keeps of `value`; what is no object where one should be stays as it is."""
    if shape is None:
        return value
    if callable(shape):
        return shape(value)
    if not isinstance(value, dict):
        return value
    return {key: kept(content, shape[key]) for key, content in value.items() if key in shape}


def beginning(value: object) -> object:
    """Keep the beginning of a long text."""
    return value[:MAX_ARGUMENT] if isinstance(value, str) else value


def end(value: object) -> object:
    """Keep the end of a long text, marked as such: it says how a tool's call went."""
    if not isinstance(value, str) or len(value) <= MAX_OUTPUT:
        return value
    text = value.rstrip()
    return f"…{text[-MAX_OUTPUT:]}" if len(text) > MAX_OUTPUT else text


ARGUMENTS: Final[Shape] = dict.fromkeys(
    ("command", "filePath", "path", "pattern", "url", "description", "query"), beginning
)
"""Of a tool's input what the server calls the call by."""


def compact(value: object) -> bytes:
    """Return `value` as JSON, as short as it can be."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        # Half a character, as JavaScript cuts them, stands only escaped.
        return json.dumps(value, separators=(",", ":")).encode()


MAX_PATCH: Final = 50_000
MAX_PATCHES: Final = 500_000
"""Characters of one file's patch, its beginning, and of all of a list together; how much was changed stays."""


def patches(files: object) -> object:
    """Keep of changed files, a list, as much of their patches as somebody may read."""
    if not isinstance(files, list):
        return files
    left = MAX_PATCHES
    kept_files = []
    for entry in files:
        file = kept(entry, keys("file", "status", "additions", "deletions", "patch"))
        if isinstance(file, dict) and isinstance(patch := file.get("patch"), str):
            file["patch"] = patch[: min(left, MAX_PATCH)]
            left -= len(file["patch"])
        kept_files.append(file)
    return kept_files


class Thinner(Protocol):
    """Thins the events of one stream, in their order."""

    kinds: frozenset[str]
    """Of events, what is told at all."""

    def thin(self, kind: str, event: dict[str, Any]) -> object:
        """Return what goes on of an event of that kind; None: its reader knows it, or has no use for it."""


def remember(known: OrderedDict[str, Any], key: str, value: object = None) -> None:
    """Put `value` at `key` as the newest, and let go of the oldest beyond `MAX_REMEMBERED`."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > MAX_REMEMBERED:
        known.popitem(last=False)
