"""Standard input for the MCP SDK: half a character, which some clients send, does not cost the whole line.

The SDK drops such a line without any answer, so that its caller waits for ever.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from opencode_common.half_characters import mended

if TYPE_CHECKING:
    from typing import BinaryIO

    from _typeshed import WriteableBuffer


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
