"""What a file that somebody sends is, by its bytes: a name or a declared type proves nothing."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from opencode_common.text import UNSAFE, one_line

MAX_FILE_BYTES: Final = 5_000_000
"""Of one file, and of all files of one message: OpenCode 2 fails at a little more."""
MAX_TEXT_BYTES: Final = 500_000
"""Of one text: a model reads no more of it."""
MAX_NAME: Final = 100
"""Characters."""
KINDS: Final = "a text, PNG, JPEG, GIF, WebP or PDF"
"""What is taken, for sentences."""
_ENDS_WITHIN: Final = 4096
"""Bytes from a PDF's end among which its mark of the end stands."""
_CONTROL: Final = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""What no text has; form feeds and escapes stand in logs of terminals."""
_SEPARATORS: Final = re.compile(r"[/\\]")


class FileType(NamedTuple):
    """A kind of file that is taken."""

    media_type: str
    suffix: str
    """With its dot."""


TEXT: Final = FileType("text/plain", ".txt")
PNG: Final = FileType("image/png", ".png")
JPEG: Final = FileType("image/jpeg", ".jpg")
GIF: Final = FileType("image/gif", ".gif")
WEBP: Final = FileType("image/webp", ".webp")
PDF: Final = FileType("application/pdf", ".pdf")
TYPES: Final = (TEXT, PNG, JPEG, GIF, WEBP, PDF)


class BadFile(ValueError):
    """A file is not taken; the message says why, to follow its name: "is empty"."""


def file_type(content: bytes) -> FileType:
    """Return what `content` is.

    Raises:
        BadFile: it is nothing that is taken, is damaged, or is too large.
    """
    if not content:
        raise BadFile("is empty")
    if len(content) > MAX_FILE_BYTES:
        raise BadFile(f"is larger than {MAX_FILE_BYTES // 1_000_000} MB: make it smaller, as by a screenshot of it")
    for begins, found, is_whole in _MAGIC:
        if begins.match(content):
            if not is_whole(content):
                raise BadFile(f"begins as {found.media_type} and is cut off or damaged: send it anew")
            return found
    if content[4:12] in _HEIF:
        raise BadFile("is a HEIC picture, which models do not take: send it as JPEG, or a screenshot of it")
    return _text(content)


def _text(content: bytes) -> FileType:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if _CONTROL.search(text):
        raise BadFile(f"is none of what is taken: send {KINDS}; a text must be UTF-8")
    if len(content) > MAX_TEXT_BYTES:
        raise BadFile(f"is a text of more than {MAX_TEXT_BYTES // 1_000} kB: send the part of it that matters")
    return TEXT


def _png(content: bytes) -> bool:
    has_size = content[12:16] == b"IHDR" and len(content) > 24 and any(content[16:20]) and any(content[20:24])
    return has_size and b"IEND" in content[-_ENDS_WITHIN:]


def _jpeg(content: bytes) -> bool:
    # Phones append films and maps of depth behind the picture's end.
    return b"\xff\xd9" in content


def _gif(content: bytes) -> bool:
    return len(content) > 13 and any(content[6:8]) and any(content[8:10]) and b"\x3b" in content[-_ENDS_WITHIN:]


def _webp(content: bytes) -> bool:
    size = int.from_bytes(content[4:8], "little")
    return content[12:16] in {b"VP8 ", b"VP8L", b"VP8X"} and 12 <= size <= len(content) - 8


def _pdf(content: bytes) -> bool:
    return b"%%EOF" in content[-_ENDS_WITHIN:]


_MAGIC: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PNG, _png),
    (re.compile(rb"\xff\xd8\xff"), JPEG, _jpeg),
    (re.compile(rb"GIF8[79]a"), GIF, _gif),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WEBP, _webp),
    (re.compile(rb"%PDF-[12]\."), PDF, _pdf),
)
_HEIF: Final = {b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypmif1", b"ftypmsf1"}


def file_name(wanted: str, found: FileType) -> str:
    """Return a name to show for a file: the last part of `wanted`, bounded, with a suffix that fits what it is.

    Whoever sent the file chose it. A text keeps any suffix but those of the other types.
    """
    last = _SEPARATORS.split(UNSAFE.sub("", wanted[: 8 * MAX_NAME]))[-1]
    name = one_line(last, MAX_NAME - len(".jpeg")).strip(" .") or "file"
    others = {kind.suffix for kind in TYPES if kind not in {found, TEXT}} | (
        {".jpeg"} if found is not JPEG else set()
    )
    suffix = PurePosixPath(name).suffix.lower()
    fits = suffix == found.suffix or (found is JPEG and suffix == ".jpeg")
    if fits or (found is TEXT and suffix not in others):
        return name
    return f"{name}{found.suffix}"
