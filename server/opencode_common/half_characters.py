"""JSON with the halves of characters mended that some clients cut.

JSON may write a character beyond U+FFFF as two escapes. A client that cuts a string in between sends half of one; it
is no character, and parsers refuse it or hand it on to what cannot write it.
"""

from __future__ import annotations

import re

# Every escape is looked at in its turn, so that the second `\` of `\\ud83d` begins none.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}(?P<second>\\u[dD][c-fC-F][0-9a-fA-F]{2})?"
    rb"|(?P<low>u[dD][c-fC-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_REPLACEMENT = rb"\ufffd"


def mended(json: bytes) -> bytes:
    """Return JSON in which half a character is U+FFFD; anything else stays as it is."""
    return _ESCAPE.sub(_whole, json) if _HALF.search(json) else json


def _whole(escape: re.Match[bytes]) -> bytes:
    is_high = len(escape[0]) == len(_REPLACEMENT) and escape["low"] is None
    return _REPLACEMENT if is_high or escape["low"] else escape[0]
