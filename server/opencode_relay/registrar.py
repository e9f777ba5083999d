"""Who is registered, and the files that say so. One per relay: it alone writes in the registry directory.

Everything here happens at once, without waiting, so that no two sessions are ever half-way through it.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter, ValidationError

from opencode_common.files import write_atomically
from opencode_common.registration import MAX_FILE_BYTES, Name, Registration
from opencode_common.validation import describe
from opencode_relay.limits import NAMELESS
from opencode_relay.protocol import LineRefusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opencode_relay.limits import ClientLog

log = logging.getLogger(__name__)

_NAME: Final = TypeAdapter[str](Name)
_NO_NAME: Final = re.compile(r"[^\w.-]+")
"""Of a name that is shown to people and models, beside sentences of ours: blanks make it one of the client's."""
_MODE: Final = 0o640
"""The directory is set-group-id, so that the group is the gateway's."""


@dataclass(eq=False, slots=True)
class RegistrarEntry:
    """One registration that stands. Compared by identity: a session removes only its own."""

    client: str
    instance_id: str
    registration: Registration
    written: os.stat_result = field(repr=False)

    @property
    def name(self) -> str:
        """The registered name."""
        return self.registration.name

    @property
    def port(self) -> int:
        """The tunnel's."""
        return self.registration.port


def validated(client: str, file: dict[str, object]) -> Registration:
    """Return what a client wants to register, under its own name.

    Raises:
        Refusal: a field is missing or not allowed.
    """
    name = _own_name(client, file.get("name"))
    try:
        registration = Registration.model_validate({**file, "name": name, "client": client, "closedAt": None})
    except ValidationError as error:
        raise LineRefusal("bad-hello", describe(error)) from None
    if len(_content(registration)) > MAX_FILE_BYTES:
        raise LineRefusal("bad-hello", f"the registration is larger than {MAX_FILE_BYTES} bytes")
    return registration


def _own_name(client: str, wanted: object) -> str:
    try:
        # Composed first: a Mac's file names have their accents apart, which are no letters.
        words = _NO_NAME.split(unicodedata.normalize("NFC", _NAME.validate_python(wanted)))
        name = _NAME.validate_python("-".join(word for word in words if word))
        return name if name.startswith(client) else _NAME.validate_python(f"{client}-{name}")
    except ValidationError as error:
        raise LineRefusal(
            "bad-name", f"the name, with {client}- before it unless it begins with {client}: {describe(error)}"
        ) from None


class Registrar:
    """All registrations of the relay."""

    def __init__(self, directory: Path, journal: ClientLog, later: Callable[[Callable[[], None]], object]) -> None:
        """`later` calls what it is given when readers have had the time to see a goodbye note."""
        self._directory = directory
        self._log = journal
        self._later = later
        self._entries: dict[str, RegistrarEntry] = {}

    def empty(self) -> None:
        """Remove what an earlier run left; the directory itself stays. Raises `OSError`."""
        with os.scandir(self._directory) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    log.warning("%s is a directory, and none of the agent's: remove it", entry.path)
                else:
                    os.unlink(entry.path)  # noqa: PTH108 # a string already

    def register(
        self, client: str, instance_id: str, registration: Registration
    ) -> tuple[RegistrarEntry, list[RegistrarEntry]]:
        """Write the registration; return it and what it takes the place of: older ones of the same instance.

        Raises:
            Refusal: another living instance has the name or the port, or the file cannot be written.
        """
        older = []
        for entry in self.of_client(client):
            if entry.instance_id == instance_id:
                older.append(entry)
            elif entry.name == registration.name:
                raise LineRefusal("name-taken", "a living instance has this name", holder=entry.registration.hostname)
            elif entry.port == registration.port:
                raise LineRefusal("bad-port", f"port {entry.port} carries the instance {entry.name}")
        entry = RegistrarEntry(client, instance_id, registration, self._write(registration))
        for old in older:
            if old.name != entry.name:
                self.say_goodbye(old)
        self._entries[entry.name] = entry
        return entry, older

    def confirm(self, entry: RegistrarEntry) -> None:
        """Write the file again if it is not there as it was written. Raises `LineRefusal` if that fails."""
        try:
            status = self._path(entry.name).lstat()
        except OSError:
            status = None
        if status is None or _identity(status) != _identity(entry.written):
            entry.written = self._write(entry.registration)

    def release(self, entry: RegistrarEntry) -> None:
        """Remove a registration, if it still stands."""
        if self._entries.get(entry.name) is entry:
            del self._entries[entry.name]
            self._unlink(entry.name)

    def say_goodbye(self, entry: RegistrarEntry) -> None:
        """Leave a note, for a while, that the instance is not called so any more; the name is free at once."""
        if self._entries.get(entry.name) is not entry:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            self._write(entry.registration.model_copy(update={"closed_at": now}))
        except LineRefusal as refusal:
            self._log.write(logging.WARNING, entry.client, "no goodbye note for %s: %s", entry.name, refusal)
        del self._entries[entry.name]
        self._later(partial(self._clear_goodbye, entry.name))

    def _clear_goodbye(self, name: str) -> None:
        if name not in self._entries:  # else it was registered again
            self._unlink(name)

    def of_client(self, client: str) -> list[RegistrarEntry]:
        """Return a client's registrations."""
        return [entry for entry in self._entries.values() if entry.client == client]

    def _unlink(self, name: str) -> None:
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            log.error("the registration of %s cannot be removed: %s", name, error.strerror)  # noqa: TRY400 # no bug

    def _write(self, registration: Registration) -> os.stat_result:
        path = self._path(registration.name)
        try:
            return write_atomically(path, _content(registration), mode=_MODE, durable=False)
        except OSError as error:
            text = "the registration of %s cannot be written: %s"
            self._log.write(logging.ERROR, registration.client or NAMELESS, text, registration.name, error.strerror)
            raise LineRefusal("write-failed", f"the relay cannot write the registration: {error.strerror}") from error

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def _content(registration: Registration) -> bytes:
    return registration.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n"


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return stat.S_IFMT(status.st_mode), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
