"""Overwriting lines of a file where they stand, for a disk that has no room for another file."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from opencode_common.files import read_opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TRIES: Final = 5
"""Each is in vain only if another whole file was put in place within its milliseconds."""


def blank_lines(path: Path, doomed: Callable[[bytes], bool]) -> None:
    """Overwrite lines of a file in place, each with `#` of its length.

    It takes no room on the disk, and whoever reads meanwhile, or after a power cut, sees each line as it was, as a
    comment, or as something between the two that begins as one of them: nothing moves. It needs no lock: a file that
    was put in place of this one meanwhile has its lines overwritten too.

    Raises:
        OSError: it cannot be done; ESTALE where another file took its place again and again.
    """
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _blank(descriptor, read_opened(descriptor, path), doomed)
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return
        finally:
            os.close(descriptor)
    raise OSError(errno.ESTALE, "another file takes its place again and again", str(path))


def _blank(descriptor: int, content: bytes, doomed: Callable[[bytes], bool]) -> None:
    at = 0
    for line in content.split(b"\n"):
        if doomed(line):
            os.pwrite(descriptor, b"#" * len(line), at)
        at += len(line) + 1
    os.fsync(descriptor)
