"""Files that go with a message. They travel in it, as data: an agent would read any other address on its machine."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opencode_common.file_types import MAX_FILE_BYTES, BadFile, file_name, file_type
from opencode_common.text import one_line
from opencode_fleet.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FILES: Final = 8
_MAX_BODY: Final = (8 << 20) - 8_192
"""Bytes of message and files, as JSON, that the guard on a laptop takes with what stands beside them."""


@dataclass(frozen=True, slots=True)
class File:
    """A file whose bytes were checked to be what `media_type` says."""

    name: str
    media_type: str
    content: bytes

    @property
    def uri(self) -> str:
        """It as a `data:` URI."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.content).decode()}"


def checked_file(name: str, content: bytes) -> File:
    """Return a file that may be sent; `name` is what its sender calls it.

    Raises:
        Refused: it is nothing that is taken, is damaged, or is too large.
    """
    try:
        found = file_type(content)
    except BadFile as error:
        raise Refused(f"the file {one_line(name, 80)!r} {error}. Nothing was sent") from None
    return File(file_name(name, found), found.media_type, content)


def check_together(message: str, files: Sequence[File]) -> None:
    """Make sure that a laptop takes a message with these files.

    Raises:
        Refused: they are too large together.
    """
    size = sum(len(file.content) for file in files)
    if size > MAX_FILE_BYTES:
        raise Refused(
            f"the files are {size / 1e6:.1f} MB together, and one message takes {MAX_FILE_BYTES // 1_000_000} MB: "
            "send some of them with another message. Nothing was sent"
        )
    encoded = sum((len(file.content) + 2) // 3 * 4 for file in files)
    if encoded + len(json.dumps(message)) > _MAX_BODY:
        raise Refused("message and files are too large together: shorten the message. Nothing was sent")
