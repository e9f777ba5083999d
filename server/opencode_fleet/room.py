"""How much may wait to be sent: messages, their texts and their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_common.text import quote_name
from opencode_fleet.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.outbox import KeptMessage

MAX_OF_INSTANCE: Final = 20
MAX_BYTES_OF_INSTANCE: Final = 1_000_000
MAX_MESSAGES: Final = 200
MAX_BYTES: Final = 8_000_000
"""Messages, and bytes of their texts, that wait at a time."""
MAX_FILES_OF_PERSON: Final = 20_000_000
MAX_FILES: Final = 50_000_000
"""Bytes of files that wait at a time, of one login and of all."""
_HELPS: Final = "Nothing was kept and nothing sent. `inbox` lists the messages, `control` cancels one"


def check_room(message: KeptMessage, others: Sequence[KeptMessage]) -> None:
    """Make sure that a message may wait beside `others`. Raises `Refused`: there is no room for it."""
    own = [each for each in others if each.instance == message.instance]
    for which, found, most, most_bytes in (
        (f"for {quote_name(message.instance)}", own, MAX_OF_INSTANCE, MAX_BYTES_OF_INSTANCE),
        ("in all", others, MAX_MESSAGES, MAX_BYTES),
    ):
        if len(found) >= most or sum(each.size for each in found) + message.size > most_bytes:
            raise Refused(
                f"{len(found)} messages wait {which}; there is room for {most}, and for {most_bytes:,} bytes. "
                f"{_HELPS}"
            )
    if not message.file_bytes:
        return
    own = [each for each in others if each.by == message.by]
    for whose, found, most in ((" of yours", own, MAX_FILES_OF_PERSON), ("", others, MAX_FILES)):
        size = sum(each.file_bytes for each in found)
        if size + message.file_bytes > most:
            raise Refused(
                f"files{whose} of {_mb(size)} wait, these are {_mb(message.file_bytes)}, and there is room for "
                f"{_mb(most)}. {_HELPS}"
            )


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
