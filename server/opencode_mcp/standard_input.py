"""Standard input for the MCP SDK, with the halves of characters mended that some clients cut.

JSON may write a character beyond U+FFFF as two escapes. A client that cuts a string in between sends half of one, and
the SDK drops such a line without any answer, so that its caller waits for ever.
"""

from __future__ import annotations

import io
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

    from _typeshed import WriteableBuffer

# Every escape is looked at in its turn, so that the second `\` of `\\ud83d` begins none.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}(?P<second>\\u[dD][c-fC-F][0-9a-fA-F]{2})?"
    rb"|(?P<low>u[dD][c-fC-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_REPLACEMENT = rb"\ufffd"


def mended(line: bytes) -> bytes:
    """Return a line of JSON in which half a character is U+FFFD; anything else stays as it is."""
    return _ESCAPE.sub(_whole, line) if _HALF.search(line) else line


def _whole(escape: re.Match[bytes]) -> bytes:
    is_high = len(escape[0]) == len(_REPLACEMENT) and escape["low"] is None
    return _REPLACEMENT if is_high or escape["low"] else escape[0]


class _Mended(io.RawIOBase):
    """A stream of lines, mended."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._line = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._line = self._line or mended(self._stream.readline())
        target = memoryview(buffer)
        size = min(len(target), len(self._line))
        target[:size], self._line = self._line[:size], self._line[size:]
        return size


def mend_standard_input() -> None:
    """Put a mended stream in the place of `sys.stdin`, where the SDK finds it.

    Descriptor 0 becomes the null device, as the SDK itself would make it, so that nothing else reads from the client.
    """
    stream = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, sys.stdin.fileno())
    os.close(null)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Mended(stream)), encoding="utf-8", errors="replace")
