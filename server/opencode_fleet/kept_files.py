"""The files of messages that wait: in the journal beside their message, in parts that it takes, and gone with it.

They are written in the transaction that accepts the message: it is kept with all of its files, or not at all.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ValidationError

from opencode_fleet.errors import Refused
from opencode_fleet.files import File
from opencode_journal.entries import KEPT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.outbox import KeptMessage
    from opencode_journal.journal import Journal

_PART: Final = 180_000
"""Bytes in one state, which has them encoded."""
_FILE: Final = f"{KEPT}file/"


class _Part(BaseModel):
    name: str
    media_type: str
    content: str


class KeptFiles:
    """The files that one journal keeps. What writes is called within a durable transaction of it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def keep(self, message: KeptMessage, files: Sequence[File]) -> None:
        """Write the files of a message."""
        for number, file in enumerate(files):
            for at in range(0, len(file.content), _PART):
                content = base64.b64encode(file.content[at : at + _PART]).decode()
                part = _Part(name=file.name, media_type=file.media_type, content=content)
                self._journal.set_state(f"{_of(message)}{number:02d}/{at:09d}", part.model_dump())

    def files(self, message: KeptMessage) -> tuple[File, ...]:
        """Return the files of a message. Raises `Refused`: they are not whole any more."""
        whole: dict[str, File] = {}
        try:
            for key, value in sorted(self._journal.states(_of(message)).items()) if message.files else ():
                part, (number, _) = _Part.model_validate(value), key.removeprefix(_of(message)).split("/")
                before = whole[number].content if number in whole else b""
                whole[number] = File(part.name, part.media_type, before + base64.b64decode(part.content))
        except (ValidationError, ValueError):
            whole.clear()
        if sum(len(file.content) for file in whole.values()) != message.file_bytes:
            raise Refused(f"the files of {message.handle} are not in the journal any more; nothing was sent")
        return tuple(whole.values())

    def remove(self, message: KeptMessage) -> None:
        """Remove the files of a message."""
        for key in self._journal.state_keys(_of(message)) if message.files else ():
            self._journal.set_state(key, None)


def _of(message: KeptMessage) -> str:
    return f"{_FILE}{message.key}/"
