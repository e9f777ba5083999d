"""Checks of JSON bodies: an object of known keys, each of a known shape. A check returns what is wrong, or None.

A body is built anew from what was read, so that the agent never sees another reading of the same bytes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from opencode_connected.guard.refusals import RequestRefused
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[object], str | None]

_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_MAX_KEY = 200
_MAX_METADATA = 32


def text(limit: int) -> Check:
    """Take a text of at most `limit` characters."""

    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return "must be a text"
        return f"is longer than {limit} characters" if len(value) > limit else None

    return check


def is_id(value: object) -> bool:
    """Tell whether `value` is an id as OpenCode makes them; it then fits into a path as it is."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def identifier(value: object) -> str | None:
    """Take an id."""
    return None if is_id(value) else "must be an id"


def boolean(value: object) -> str | None:
    """Take true or false."""
    return None if isinstance(value, bool) else "must be true or false"


def number(value: object) -> str | None:
    """Take a number of a day's milliseconds at most."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 86_400_000
    return None if fits else "must be a whole number of milliseconds"


def moment(value: object) -> str | None:
    """Take a moment of this century or the next, in milliseconds since 1970."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 43
    return None if fits else "must be a time in whole milliseconds since 1970"


def one_of(*words: str) -> Check:
    """Take one of `words`."""

    def check(value: object) -> str | None:
        return None if value in words else f"must be one of {', '.join(words)}"

    return check


MEDIA_TYPES = ("text/plain", "image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")
"""Of files that a message may bring along."""
MAX_FILES = 16
_DATA_URL = re.compile(rf"data:({'|'.join(map(re.escape, MEDIA_TYPES))});base64,[A-Za-z0-9+/]*={{0,2}}")


def data_url(value: object) -> str | None:
    """Take a file that is in the message itself: any other URL would be read on the laptop."""
    if not isinstance(value, str) or not value.startswith("data:"):
        return "must be a data: URL"
    if _DATA_URL.fullmatch(value):
        return None
    return f"must be a data: URL with base64 of a type that is let through: {', '.join(MEDIA_TYPES)}"


def array(entry: Check, limit: int) -> Check:
    """Take a list of at most `limit` entries."""

    def check(value: object) -> str | None:
        if not isinstance(value, list):
            return "must be a list"
        if len(value) > limit:
            return f"has more than {limit} entries"
        for index, item in enumerate(value):
            if problem := entry(item):
                return f"[{index}] {problem}"
        return None

    return check


def fields(known: Mapping[str, Check], *required: str) -> Check:
    """Take an object of `known` keys, of which `required` must be there."""

    def check(value: object) -> str | None:
        if not isinstance(value, dict):
            return "must be an object"
        for key, content in value.items():
            if key not in known:
                return f"has `{printable(key, limit=40)}`, which is not let through"
            if problem := known[key](content):
                return f"`{key}` {problem}"
        missing = [key for key in required if key not in value]
        return f"lacks `{missing[0]}`" if missing else None

    return check


def mapping(entry: Check, limit: int) -> Check:
    """Take an object of at most `limit` keys, none of which JavaScript takes for its own."""

    def check(value: object) -> str | None:
        if not isinstance(value, dict):
            return "must be an object"
        if len(value) > limit or any(len(key) > _MAX_KEY or key == "__proto__" for key in value):
            return f"must have at most {limit} keys of at most {_MAX_KEY} characters"
        return next((problem for content in value.values() if (problem := entry(content))), None)

    return check


def scalar(limit: int) -> Check:
    """Take a text of at most `limit` characters, a number, true, false or nothing."""

    def check(value: object) -> str | None:
        return None if value is None or isinstance(value, bool | int | float) else text(limit)(value)

    return check


metadata = mapping(scalar(1024), _MAX_METADATA)
"""Take what a client marks its own things with."""


def either(*checks: Check) -> Check:
    """Take what any of `checks` takes; what is wrong is what the last one says."""

    def check(value: object) -> str | None:
        problem = None
        for one in checks:
            problem = one(value)
            if problem is None:
                return None
        return problem

    return check


def by_type(checks: Mapping[str, Check]) -> Check:
    """Take an object whose `type` is one of the keys, and which passes the check of that type."""

    def check(value: object) -> str | None:
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in checks:
            return f"must be an object of a type {' or '.join(checks)}"
        return checks[kind](value)

    return check


def read_object(content: bytes) -> dict[str, object]:
    """Return the JSON object in `content`; nothing is an empty one.

    Raises:
        Refused: it is none.

    """
    if not content:
        return {}
    try:
        value = json.loads(content.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise RequestRefused("body", "the body is no JSON: send a JSON object") from None
    if not isinstance(value, dict):
        raise RequestRefused("body", "the body is no JSON object: send one")
    return value


def _no_constant(name: str) -> object:
    raise ValueError(name)
