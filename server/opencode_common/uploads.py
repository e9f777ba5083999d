"""Files on their way from a person's browser into a message: one directory that gateway and server share.

The server opens a place for one file and gives its secret to the person as a link. The gateway, which serves that
link, fills it; the server takes the file out. A place is two files: `ID.json` says whose it is, since when, and what
lies there; `ID.file` is there as soon as somebody has begun to fill it, so that it is filled once. ID is a hash of
the secret: who reads the directory's names can fill no place.

All methods raise `OSError` where the directory does not serve.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from opencode_common.database import make_private_directory
from opencode_common.file_types import MAX_FILE_BYTES, FileType, file_name, file_type
from opencode_common.files import read_small_file, write_atomically, write_new

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OPEN_SECONDS: Final = 600
"""For which a link serves."""
KEPT_SECONDS: Final = 86_400
"""For which a file is kept that nobody takes."""
MAX_OF_LOGIN: Final = 8
MAX_PLACES: Final = 40
"""Of one login, and of all: 200 MB at most."""
_MAX_RECORD: Final = 8_192
_ID: Final = re.compile(r"[0-9a-f]{32}")
_STAGED: Final = re.compile(r"\.[0-9a-f]{32}\.(?:file|json)\.[0-9a-f]{8}")
"""What `write_new` and `write_atomically` write into first."""
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class Full(Exception):
    """No more places now; the message says what helps."""


class Upload(NamedTuple):
    """A file that somebody sent."""

    name: str
    content: bytes


class _Record(BaseModel):
    login: str = Field(max_length=400)
    opened: float
    """Epoch seconds."""
    name: str = Field("", max_length=200)
    """Of what lies there; empty while nothing does."""


class Uploads:
    """The places in `directory`, which is made if it is missing. `clock`: epoch seconds."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock

    def open(self, login: str) -> tuple[str, str]:
        """Open a place for one file of `login`; return its id and the secret that fills it.

        Raises:
            Full: too many are open, or hold a file that was not sent.
        """
        make_private_directory(self._directory)
        places = self.prune()
        if sum(record.login == login for record in places.values()) >= MAX_OF_LOGIN:
            raise Full(f"{MAX_OF_LOGIN} uploads of yours wait: send those, or ask again in ten minutes")
        if len(places) >= MAX_PLACES:
            raise Full("too many uploads wait: ask again in ten minutes, or send the file by an https address")
        secret = secrets.token_urlsafe(32)
        place = _place(secret)
        write_new(
            self._record_of(place), _Record(login=login, opened=self._clock(), name="").model_dump_json().encode()
        )
        return place, secret

    def login_of(self, secret: str) -> str | None:
        """Return whose place `secret` fills; None where it fills none, not any more, or is not ours."""
        found = self._fillable(secret)
        return None if found is None else found.login

    def fill(self, secret: str, name: str, content: bytes) -> FileType | None:
        """Put a file into the place; return what it is, or None: there is none for it any more.

        Raises:
            BadFile: it is nothing that is taken; the place stays open.
        """
        record = self._fillable(secret)
        if record is None:
            return None
        found = file_type(content)
        place = _place(secret)
        try:
            write_new(self._content_of(place), content)
        except FileExistsError:
            return None  # somebody was faster
        filled = record.model_copy(update={"name": file_name(name, found)})
        try:
            write_atomically(self._record_of(place), filled.model_dump_json().encode(), mode=0o600)
        except BaseException:
            # As on a full disk: the link serves again.
            self._content_of(place).unlink(missing_ok=True)
            raise
        return found

    def file(self, place: str, login: str) -> Upload | None:
        """Return what lies in a place of `login`; None while nothing does. Raises `KeyError`: it has none such."""
        record = self._read(place)
        if record is None or record.login != login or self._is_over(record):
            raise KeyError(place)
        if not record.name:
            return None
        try:
            return Upload(record.name, read_small_file(self._content_of(place), MAX_FILE_BYTES, follow=False))
        except FileNotFoundError:  # it was removed as it was filled
            raise KeyError(place) from None

    def remove(self, place: str) -> None:
        """Remove a place and what lies there."""
        # The record goes last: what is left alone would be found by nobody.
        for path in (self._content_of(place), self._record_of(place)):
            path.unlink(missing_ok=True)

    def prune(self) -> dict[str, _Record]:
        """Remove what is over; return the rest by id."""
        rest = {}
        for place in list(self._places()):
            record = self._read(place)
            if record is None or self._is_over(record):
                self.remove(place)
            else:
                rest[place] = record
        self._prune_staged()
        return rest

    def _prune_staged(self) -> None:
        """Remove what a process that ended in the middle of writing left."""
        with suppress(FileNotFoundError):
            for path in list(self._directory.iterdir()):
                if not _STAGED.fullmatch(path.name):
                    continue
                with suppress(FileNotFoundError):  # it was put in its place meanwhile
                    if self._clock() - path.lstat().st_mtime > OPEN_SECONDS:
                        path.unlink()

    def _fillable(self, secret: str) -> _Record | None:
        if not _SECRET.fullmatch(secret):
            return None
        record = self._read(_place(secret))
        if record is None or record.name or not 0 <= self._clock() - record.opened < OPEN_SECONDS:
            return None
        return record

    def _is_over(self, record: _Record) -> bool:
        # A clock that was set back must not keep it for ever.
        return not -KEPT_SECONDS <= self._clock() - record.opened < (KEPT_SECONDS if record.name else OPEN_SECONDS)

    def _places(self) -> Iterator[str]:
        with suppress(FileNotFoundError):
            names = {path.stem for path in self._directory.iterdir() if path.suffix in {".json", ".file"}}
            yield from (name for name in sorted(names) if _ID.fullmatch(name))

    def _read(self, place: str) -> _Record | None:
        if not _ID.fullmatch(place):
            return None
        try:
            return _Record.model_validate_json(read_small_file(self._record_of(place), _MAX_RECORD, follow=False))
        except (FileNotFoundError, ValidationError):
            return None

    def _record_of(self, place: str) -> Path:
        return self._directory / f"{place}.json"

    def _content_of(self, place: str) -> Path:
        return self._directory / f"{place}.file"


def _place(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:32]
