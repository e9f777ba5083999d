"""Text from other machines made safe to show: no control characters, bounded, inside unforgeable delimiters."""

from __future__ import annotations

import re
import secrets

# C0 (but tab and newline), DEL, C1, line and paragraph separators; all that is invisible or turns the direction of
# writing (but the joiners and the first variation selectors, which emoji and many scripts need), where instructions
# to a model can hide from a person; lone surrogates, which cannot be encoded.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_BLANKS = re.compile(r"\s+")
_DELIMITER = re.compile("</?untrusted-[0-9a-f]{12}>")
MAX_NAME = 64
"""Characters of an instance's name that are shown."""
_PLAIN_NAME = re.compile(rf"[\w.-]{{1,{MAX_NAME}}}")


def clean(text: str) -> str:
    r"""Return `text` with control, invisible and direction-changing characters shown like `\x1b` or `\u202e`."""
    return UNSAFE.sub(_escape, text.replace("\r\n", "\n"))


def _escape(match: re.Match[str]) -> str:
    return escaped(match[0])


def escaped(character: str) -> str:
    r"""Return one character like `\x1b` or `\u202e`."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str, limit: int) -> str:
    """Return `text` cleaned, blanks folded, and cut to `limit` characters with a visible `…`."""
    # Cut generously before the regular expressions: a hostile title may have megabytes.
    folded = clean(_BLANKS.sub(" ", text[: limit * 8]).strip())
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"


def cut_tail(text: str, limit: int, more: str) -> str:
    """Keep the first `limit` characters; a visible mark says how much is missing, and `more` how to get it."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[… {len(text) - limit:,} characters cut; {more}]"


def cut_head(text: str, limit: int, more: str) -> str:
    """Keep the last `limit` characters of `text`, marked like `cut_tail`. Raises `ValueError` for a limit below 1."""
    if limit < 1:
        raise ValueError(f"the last {limit} characters of a text are none")
    if len(text) <= limit:
        return text
    return f"[{len(text) - limit:,} characters cut; {more} …]\n{text[-limit:]}"


def fence(text: str) -> str:
    """Wrap cleaned text of another machine in delimiters with a random mark that it cannot know, so not forge."""
    return _enclose(f"\n{text}\n")


def quote(text: str, limit: int) -> str:
    """Return `text` as `one_line` does, inside delimiters like those of `fence`: for sentences of ours."""
    return _enclose(one_line(text, limit))


def quote_name(name: str) -> str:
    """Return the name of an instance, which its own machine chose, for sentences of ours.

    A single word, as all names of a provisioned relay are, stands in plain quotation marks: it cannot hold one.
    """
    is_plain = _PLAIN_NAME.fullmatch(name) and clean(name) == name
    return f"“{name}”" if is_plain else quote(name, MAX_NAME)


def bare(text: str) -> str:
    """Return `text` without the delimiters of `quote`, to stand inside others."""
    return _DELIMITER.sub("", text)


def _enclose(text: str) -> str:
    mark = secrets.token_hex(6)
    return f"<untrusted-{mark}>{text}</untrusted-{mark}>"
