"""Text from elsewhere (OpenCode, the relay, ssh) made safe to show on a terminal."""

from __future__ import annotations

import unicodedata

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls and escapes, invisible and direction-changing characters, surrogates, line separators."""


def as_utf8(text: str) -> str:
    """Return `text` as it can be written: what the system hands out as lone surrogates, no UTF-8, becomes U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def printable(text: str, *, limit: int = 400) -> str:
    """Return `text` as one line of at most `limit` characters that no terminal acts upon.

    Whitespace becomes a blank, every other character that does not show is left out.
    """
    line = "".join(
        " " if character.isspace() else character
        for character in text
        if character.isspace() or unicodedata.category(character) not in _UNSAFE_CATEGORIES
    ).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"
