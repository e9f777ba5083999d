"""Files of each kind that a message may bring along: small ones, and whole."""

from __future__ import annotations

import struct
import zlib


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*, noise: bytes = b"") -> bytes:
    """Return a picture of one red dot, with `noise` beside it that makes it as large as is wanted."""
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    dot = zlib.compress(b"\0\xff\0\0")
    extra = _chunk(b"teXt", noise) if noise else b""
    parts = _chunk(b"IHDR", head) + extra + _chunk(b"IDAT", dot) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


PNG = png()
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xd9 and what phones put behind"
GIF = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\4\0\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
WEBP = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0/\0\0\0\x10\7\x10\x11\x11\x88\x88\xfe\7\0"
PDF = b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
