"""User names and passwords of instances whose OpenCode was started with one."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, SecretStr, TypeAdapter, ValidationError

from opencode_fleet.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


class Credential(BaseModel):
    """What one instance wants; the user name's default is OpenCode's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    username: str = "opencode"
    password: SecretStr


_FILE = TypeAdapter(dict[str, Credential])


class Credentials:
    """The credentials file, read anew at each use, so that a password can be added without a restart."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def for_instance(self, name: str) -> Credential | None:
        """Return what belongs to exactly this instance name.

        Raises:
            SettingsError: the file is missing, open to others, or of another shape.
        """
        if self._path is None:
            return None
        try:
            return read_credentials(self._path).get(name)
        except ValueError as error:
            raise SettingsError(f"RELAY_CREDENTIALS_FILE must be {error}") from None


def read_credentials(path: Path) -> dict[str, Credential]:
    """Return what the file at `path` holds, by instance.

    Raises:
        ValueError: what it must be, in words that do not quote it.
    """
    try:
        if path.stat().st_mode & stat.S_IRWXO:
            raise ValueError(f"closed to other users: chmod o= {path}")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"readable, and is not: {error.strerror}") from None
    try:
        return _FILE.validate_python(json.loads(content))
    except (ValidationError, ValueError, RecursionError):
        # The error's text would quote the file.
        raise ValueError('JSON like {"instance": {"username": "opencode", "password": "…"}}') from None
