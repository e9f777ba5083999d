"""What `files` of `send` stands for: texts in the call, addresses on the internet, and files that a person uploaded.

A call through a chat client carries no picture, so the person uploads it: `files: ["upload"]` gives a link and a
handle, `files: ["u3"]` takes the file. Only who asked for the link can use the handle.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from opencode_common.file_types import KINDS, MAX_FILE_BYTES, MAX_NAME
from opencode_common.text import one_line
from opencode_common.uploads import OPEN_SECONDS, Full, Uploads
from opencode_fleet.errors import Refused
from opencode_fleet.fetching import Fetcher
from opencode_fleet.files import MAX_FILES, check_together, checked_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opencode_fleet.files import File
    from opencode_journal.journal import Journal

UPLOAD: Final = "upload"
"""What stands in `files` for a link on which a file is uploaded."""
_HANDLE: Final = re.compile(r"u[0-9]{1,16}", re.IGNORECASE)
_PLACES: Final = "uploads"
"""Where an instance's name stands with other handles."""


class TextFile(BaseModel):
    """A text in the call itself."""

    model_config = ConfigDict(extra="forbid")

    name: str
    text: str


def _as_list(value: object) -> object:
    """Understand what models write in place of a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str | dict) else value


Given = Annotated[
    list[str | TextFile],
    Field(max_length=MAX_FILES),
    BeforeValidator(_as_list),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {"type": "object"}]},
            "description": f"{{name,text}}, https URL, or {UPLOAD!r} for a link and its handle",
        }
    ),
]
"""The argument."""


class UploadPage(NamedTuple):
    """Where people upload files."""

    uploads: Uploads
    url: str
    """What comes behind it is the secret of one upload."""


class Link(NamedTuple):
    """Where one file is uploaded, and the handle that stands for it then."""

    url: str
    handle: str

    @property
    def told(self) -> str:
        """What to do with it."""
        return (
            f"Give the person this link: {self.url}\nIt takes one file of at most {MAX_FILE_BYTES // 1_000_000} MB "
            f"({KINDS}) within {OPEN_SECONDS // 60} minutes. Once they say it is uploaded, send the message with "
            f"files=[{self.handle!r}]. Nothing was sent yet."
        )


class Attachments:
    """Finds the files that a call names.

    Args:
        journal: gives handles to uploads.
        page: None where no gateway serves one.
        fetcher: fetches by https.
    """

    def __init__(self, journal: Journal, page: UploadPage | None, fetcher: Fetcher | None = None) -> None:
        self._journal = journal
        self._page = page
        self._fetcher = fetcher or Fetcher()

    def link(self, given: Sequence[str | TextFile], login: str) -> Link | None:
        """Return a new link for one file of `login`, if that is what `given` asks for.

        Raises:
            Refused: there is no page here, too many uploads wait, or the word stands beside files.
        """
        if not any(isinstance(item, str) and item.strip().lower() == UPLOAD for item in given):
            return None
        if len(given) > 1:
            raise Refused(f"{UPLOAD!r} stands alone in `files`: it gives one link. Nothing was sent")
        if self._page is None:
            raise Refused(
                "there is no upload page here, as no gateway serves this server: give a text as {name, text}, or an "
                "https address. Nothing was sent"
            )
        try:
            place, secret = self._page.uploads.open(login)
        except Full as full:
            raise Refused(f"{full}. Nothing was sent") from None
        except OSError as error:
            raise _unusable(error) from error
        return Link(f"{self._page.url}/{secret}", self._journal.handle("u", _PLACES, place))

    async def files(self, given: Sequence[str | TextFile], message: str, login: str) -> tuple[File, ...]:
        """Return the files that go with `message`, each of which was checked.

        Raises:
            Refused: one of them is not to be had, or is not taken; nothing was sent.
        """
        found = await asyncio.gather(*(self._file(item, login) for item in given))
        check_together(message, found)
        return tuple(found)

    def sent(self, given: Sequence[str | TextFile]) -> None:
        """Let go of the uploads that a message was sent with."""
        for item in given:
            if self._page is not None and isinstance(item, str) and (place := self._place(item)):
                try:
                    self._page.uploads.remove(place)
                except OSError:
                    continue  # it goes after a day

    async def _file(self, item: str | TextFile, login: str) -> File:
        if isinstance(item, TextFile):
            return checked_file(item.name, item.text.encode(errors="replace"))
        item = item.strip()
        if _HANDLE.fullmatch(item):
            return self._uploaded(item, login)
        if "://" in item and not item.lower().startswith("file:"):
            name, content = await self._fetcher.fetch(item)
            return checked_file(name, content)
        raise Refused(
            f"`files` has {one_line(item, MAX_NAME)!r}: files of this machine are not read. Give a text as "
            f"{{name, text}}, an https address, or {UPLOAD!r} for a link on which the person uploads one. "
            "Nothing was sent"
        )

    def _uploaded(self, handle: str, login: str) -> File:
        anew = f"ask for a new link with files=[{UPLOAD!r}]. Nothing was sent"
        place = self._place(handle)
        if place is None or self._page is None:
            raise Refused(f"no upload has the handle {handle}: {anew}")
        try:
            upload = self._page.uploads.file(place, login)
        except KeyError:
            raise Refused(f"the upload {handle} was sent already, or its time is over: {anew}") from None
        except OSError as error:
            raise _unusable(error) from error
        if upload is None:
            raise Refused(
                f"nothing was uploaded for {handle} yet: the person opens its link and chooses a file. "
                "Nothing was sent"
            )
        return checked_file(upload.name, upload.content)

    def _place(self, handle: str) -> str | None:
        found = self._journal.of_handle(handle)
        return found[2] if found is not None and found[:2] == ("u", _PLACES) else None


def upload_page(directory: Path | None, url: str) -> UploadPage | None:
    """Return the page that a parent of this process serves, if it said where."""
    return UploadPage(Uploads(directory), url) if directory is not None and url else None


def _unusable(error: OSError) -> Refused:
    return Refused(
        f"the directory of uploads cannot be used: {error.strerror}. `opencode-gateway doctor` on the relay may say "
        "more. Nothing was sent"
    )


def listed(files: Sequence[File]) -> str:
    """Return the names of files for people; empty where there are none."""
    return ", ".join(file.name for file in files)
