"""JSON whose long texts are emptied while it arrives, so that an answer may hold more than is read of one.

OpenCode 1 keeps in a session's record a diff of all that was taken back in it, of whatever size, and nobody at the
other end reads it.
"""

from __future__ import annotations

import re
from typing import Final

MAX_TEXT: Final = 1 << 16
"""Bytes of a text as it arrives. A longer one becomes an empty one, never its beginning: half a path is another."""
_INSIDE: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
"""The rest of a text, up to its end or to an escape that is not here whole."""


class LongTexts:
    """Empties the long texts of one JSON document that comes in pieces."""

    def __init__(self) -> None:
        self._is_inside = False
        """Whether the last piece ended in a text."""
        self._text = bytearray()
        """What has come of it."""
        self._is_long = False
        self._rest = b""
        """Half an escape."""

    def emptied(self, piece: bytes) -> bytes:
        """Return what of the document goes on with this piece."""
        piece = self._rest + piece
        self._rest = b""
        kept = bytearray()
        at = 0
        while at < len(piece):
            if not self._is_inside:
                begins = piece.find(b'"', at)
                if begins < 0:
                    kept += piece[at:]
                    break
                kept += piece[at:begins]
                self._is_inside, self._is_long, at = True, False, begins + 1
                self._text.clear()
            inside = _INSIDE.match(piece, at)
            ends = inside.end() if inside else at
            self._take(piece[at:ends])
            if ends == len(piece) or piece[ends : ends + 1] == b"\\":
                self._rest = piece[ends:]
                break
            kept += b'""' if self._is_long else b'"%b"' % bytes(self._text)
            self._is_inside, at = False, ends + 1
        return bytes(kept)

    def _take(self, more: bytes) -> None:
        self._is_long = self._is_long or len(self._text) + len(more) > MAX_TEXT
        if self._is_long:
            self._text.clear()
        else:
            self._text += more
