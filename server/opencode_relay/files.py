"""Writing a file so that readers see the old one or the new one, whole, with its owner and mode from the start."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_atomically(
    path: Path, content: bytes, *, mode: int, group: int = -1, durable: bool = True
) -> os.stat_result:
    """Put `content` in place of `path` and return the new file's status.

    `group`: numeric, -1 to leave it to the directory. `durable`: survive a power cut. Raises `OSError`.
    """
    # A dot-file: whoever watches the directory ignores it.
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 # a descriptor, not a path
            file.write(content)
            file.flush()
            if group != -1:
                os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, mode)
            if durable:
                os.fsync(descriptor)
            status = os.fstat(descriptor)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return status
