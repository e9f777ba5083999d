"""Text from other machines made safe to show: no control characters, bounded, inside unforgeable delimiters."""

from __future__ import annotations

import re
import secrets

# C0 (but tab and newline), DEL, C1, line/paragraph separators, bidirectional and invisible formatting, tag
# characters (invisible instructions to a model), byte-order mark, lone surrogates (cannot be encoded).
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_BLANKS = re.compile(r"\s+")


def clean(text: str) -> str:
    r"""Return `text` with control, invisible and direction-changing characters shown as `\x1b` or `\u202e`."""
    return _UNSAFE.sub(_escape, text.replace("\r\n", "\n"))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


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
    """Keep the last `limit` characters of `text`, marked like `cut_tail`."""
    if len(text) <= limit:
        return text
    return f"[{len(text) - limit:,} characters cut; {more} …]\n{text[-limit:]}"


def fence(text: str) -> str:
    """Wrap cleaned text of another machine in delimiters with a random mark that it cannot know, so not forge."""
    mark = secrets.token_hex(6)
    return f"<untrusted-{mark}>\n{text}\n</untrusted-{mark}>"
