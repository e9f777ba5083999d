"""Reading files and nothing else; writing one so that readers see it whole, with owner and mode from the start."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final

from opencode_common.files import read_small_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


_MAX_BYTES: Final = 64 * 1024 * 1024
"""Far beyond what all ports of a machine could make of any file of ours."""


def read_regular(path: Path) -> bytes:
    """Return what is in the file. Raises `OSError`, also for a device, a FIFO and what is far too large."""
    return read_small_file(path, _MAX_BYTES)


def blank_lines(path: Path, doomed: Callable[[bytes], bool]) -> None:
    """Overwrite lines of a file in place, each with `#` of its length.

    It takes no room on the disk, and whoever reads meanwhile, or after a power cut, sees each line as it was, as a
    comment, or as something between the two that begins as one of them: nothing moves. Raises `OSError`.
    """
    content = read_regular(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        at = 0
        for line in content.split(b"\n"):
            if doomed(line):
                os.pwrite(descriptor, b"#" * len(line), at)
            at += len(line) + 1
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(
    path: Path, content: bytes, *, mode: int, group: int = -1, durable: bool = True
) -> os.stat_result:
    """Put `content` in place of `path` and return the new file's status.

    `group`: numeric, -1 to leave it to the directory. `durable`: survive a power cut. Raises `OSError`.
    """
    # Staged as a dot-file: whoever watches the directory ignores it.
    staged, descriptor = _staged(path)
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


def write_new(path: Path, content: bytes) -> None:
    """Put `content` where nothing is yet, whole at once and with mode 0600.

    Raises `OSError`: `FileExistsError` where something is, also where it came meanwhile.
    """
    staged, descriptor = _staged(path)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 # a descriptor, not a path
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        # Unlike a rename it replaces nothing.
        path.hardlink_to(staged)
    finally:
        staged.unlink(missing_ok=True)


def _staged(path: Path) -> tuple[Path, int]:
    """Make a file beside `path` that only its owner may read; return it and its descriptor."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    return staged, os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
