"""Registration files, read as what they are: another machine's word.

The format is the contract of `docs/contract.md`; the launcher has its own code for writing it.
"""

from __future__ import annotations

import errno
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from opencode_common.files import read_small_file
from opencode_common.text import clean
from opencode_common.validation import describe

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES = 16 * 1024
MAX_NAME_CHARACTERS = 64
MAX_NAME_BYTES = 200


class InvalidRegistration(ValueError):
    """A file that is not a registration; the text says why, without quoting the file."""


def _check_name(name: str) -> str:
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise ValueError(f"longer than {MAX_NAME_BYTES} bytes")
    if name.startswith(".") or name != name.strip() or "/" in name or "\\" in name:
        raise ValueError("starts with a dot, has a slash or backslash, or blanks at an end")
    if not name.isprintable() or clean(name) != name:
        raise ValueError("has characters that cannot be shown")
    return name


def is_name(name: str) -> bool:
    """Whether an instance may be called so."""
    try:
        _check_name(name)
    except ValueError:
        return False
    return 1 <= len(name) <= MAX_NAME_CHARACTERS


def _check_time(value: str) -> str:
    if datetime.fromisoformat(value).tzinfo is None:
        raise ValueError("has no time zone")
    return value


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS), AfterValidator(_check_name)]
Port = Annotated[int, Field(ge=1024, le=65535, strict=True)]
Time = Annotated[str, Field(max_length=40), AfterValidator(_check_time)]


class Registration(BaseModel):
    """One registration, validated. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Name
    hostname: str = Field(min_length=1, max_length=255)
    port: Port
    local_port: Port = Field(alias="localPort")
    cwd: str = Field(min_length=1, max_length=4096)
    connected_at: Time = Field(alias="connectedAt")
    client: str | None = Field(None, min_length=1, max_length=64)
    closed_at: Time | None = Field(None, alias="closedAt")


def parse_registration(content: bytes, file_name: str, ports: range) -> Registration:
    """Validate the content of the registration file `file_name`.

    Raises:
        InvalidRegistration: no JSON object of that shape, a name that is not the file's, a port outside `ports`.
    """
    try:
        registration = Registration.model_validate_json(content)
    except ValidationError as error:
        raise InvalidRegistration(describe(error)) from None
    if f"{registration.name}.json" != file_name:
        raise InvalidRegistration("name: is not the file's name")
    if registration.port not in ports:
        raise InvalidRegistration(f"port: outside {ports.start}-{ports.stop - 1}")
    return registration


def read_registration_bytes(path: Path) -> bytes:
    """Read a registration file without following links, blocking on a FIFO, or reading more than its limit.

    Raises:
        FileNotFoundError: it is gone.
        InvalidRegistration: not a regular file, or too large.
        OSError: it cannot be read.
    """
    try:
        return read_small_file(path, MAX_FILE_BYTES, follow=False)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise InvalidRegistration("not a regular file") from None
        if error.errno == errno.EFBIG:
            raise InvalidRegistration(f"larger than {MAX_FILE_BYTES} bytes") from None
        raise
