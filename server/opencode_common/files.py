"""Reading files that another user or machine may have put there, telling versions apart, and writing whole ones."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES: Final = 64 * 1024 * 1024
"""Far beyond what all machines of a fleet could make of any file of ours."""

_NO_HARD_LINKS: Final = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
"""What file systems say that have none: vfat, exFAT, some network mounts and some of FUSE."""


class FileIdentity(NamedTuple):
    """Tells one version of a file from another."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    """Also grows when the mode is mended."""

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """The identity in a stat result."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read_small_file(path: Path, limit: int, *, follow: bool = True) -> bytes:
    """Read a regular file of at most `limit` bytes, without ever waiting for whoever is at the end of a FIFO.

    `follow`: whether the last part of the path may be a symbolic link.

    Raises:
        OSError: it cannot be read; EINVAL where it is no regular file, EFBIG where it is larger.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        return read_opened(descriptor, path, limit)
    finally:
        os.close(descriptor)


def read_opened(descriptor: int, path: Path, limit: int = _MAX_BYTES) -> bytes:
    """Read the same from a file that was opened as `path` without blocking. Raises what `read_small_file` does."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    with open(descriptor, "rb", closefd=False) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes", str(path))
    return content


def read_regular(path: Path) -> bytes:
    """Return what is in a file of ours. Raises `OSError`, also for a device, a FIFO and what is far too large."""
    return read_small_file(path, _MAX_BYTES)


def write_atomically(
    path: Path, content: bytes, *, mode: int, group: int = -1, durable: bool = True
) -> os.stat_result:
    """Put `content` in place of `path`, for readers to see it whole, and return the new file's status.

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
    """Put `content` where nothing is yet, with mode 0600, and whole at once where the file system has hard links.

    Raises `OSError`: `FileExistsError` where something is, also where it came meanwhile. Nothing is left then.
    """
    staged, descriptor = _staged(path)
    try:
        _fill(descriptor, content)
        try:
            # Unlike a rename it replaces nothing.
            path.hardlink_to(staged)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
        else:
            return
    finally:
        staged.unlink(missing_ok=True)
    descriptor = _create(path)
    try:
        _fill(descriptor, content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _fill(descriptor: int, content: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _staged(path: Path) -> tuple[Path, int]:
    """Make a file beside `path` that only its owner may read; return it and its descriptor."""
    staged = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    return staged, _create(staged)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
