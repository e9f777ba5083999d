"""Secrets of the service's own, each in a file that it makes itself."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from opencode_gateway.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

_KEY_BYTES: Final = 32


def load_key(path: Path, *, without: str) -> bytes:
    """Read the 32 bytes of a key, and make it at the first call.

    Args:
        path: in the data directory, which must exist.
        without: what happens when it is removed, for the person who is told to.

    Raises:
        StoreError: it cannot be read or made, is no regular file, is open to others, or is damaged.
    """
    try:
        if not path.exists():
            _make_key(path)
        # O_NONBLOCK: opening a FIFO must not wait for whoever is at the other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 # a descriptor, not a path
            mode = os.fstat(descriptor).st_mode
            key = file.read(_KEY_BYTES + 1) if stat.S_ISREG(mode) else b""
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        helps = "make room on its disk" if full else f"see that {path.parent} belongs to the service"
        raise StoreError(f"{path} cannot be used: {error.strerror}; {helps}") from error
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path} is no regular file: remove it, and {without}")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StoreError(
            f"{path} is open to others here: `sudo chmod 600 {path}`, and remove it if they are not trusted"
        )
    if len(key) != _KEY_BYTES:
        raise StoreError(f"{path} is damaged: remove it, and {without}")
    return key


def _make_key(path: Path) -> None:
    """Put a key there, whole at once, unless another process is faster."""
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        made.unlink()
