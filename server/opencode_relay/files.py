"""Overwriting lines of a file where they stand, for a disk that has no room for another file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from opencode_common.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
