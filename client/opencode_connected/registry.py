"""The local registry directory: claiming a name, publishing a registration, taking it back (docs/contract.md).

Every operation opens the directory anew and works through that descriptor, so that a directory which vanishes,
comes back or is swapped for a symlink in between can do no harm. All functions block for milliseconds; only the
standard library is used, because the guardian loads this module without site packages.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_connected import processes
from opencode_connected.errors import NameTaken, RegistryRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

GOODBYE_SECONDS = 0.5
"""How long a goodbye note stands before its file is removed, for readers to see it."""

_LOCK_SECONDS = 5.0
"""A lock is held for milliseconds; one that is held this long is reported."""
_LOCK_RETRY_SECONDS = 0.02
_UNSIGNED_LOCK_SECONDS = 2.0
"""A lock without a pid is being made right now, or its maker died: the latter after this time."""
_MAX_FILE_BYTES = 16 * 1024
_CHECK_FILE = f".check-{os.getpid()}"
_OWNER = re.compile(rb"([0-9a-f]{32}) (\d{1,10}) (\S*)(?:\n([0-9a-f-]{36}:\d+))?\n?")
_OWNER_FILE = re.compile(r"\.(.+)\.owner")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Owner:
    """Who keeps a registration: the launcher's instance id (32 hex digits), its process, when that started.

    `since` is that start as no clock moves it, empty where it cannot be told.
    """

    instance_id: str
    pid: int
    start: str
    since: str = ""

    def lives(self) -> bool:
        """Tell whether the owning process still runs."""
        return processes.lives(self.pid, self.since or self.start)

    def to_bytes(self) -> bytes:
        """Return the owner file."""
        since = f"{self.since}\n" if self.since else ""
        return f"{self.instance_id} {self.pid} {self.start}\n{since}".encode()


class Registry:
    """The registry directory at `path` on this machine."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def claim(self, name: str, owner: Owner) -> None:
        """Take `name` for `owner` before there is anything to register; `NameTaken` if a living one holds it."""
        with self._directory() as directory, _locked(directory, name):
            self._take(directory, name, owner)

    def publish(self, name: str, content: bytes, owner: Owner, key: str | None = None) -> None:
        """Write the registration file `content` (one line of JSON) of `name`; `NameTaken` as for `claim`.

        `key`: what the guard at its port asks for; its file is there before the registration, and goes with it.
        """
        with self._directory() as directory, _locked(directory, name):
            self._take(directory, name, owner)
            self._put_key(directory, name, key)
            if _read(directory, f"{name}.json") != content:
                _replace(directory, f"{name}.json", content)

    def is_intact(self, name: str, content: bytes, owner: Owner, key: str | None = None) -> bool:
        """Tell, without a lock, whether what `publish` wrote is still there as it was."""
        try:
            with self._directory() as directory:
                files = [_read(directory, file) for file in (f"{name}.json", f".{name}.owner", f".{name}.key")]
                return files == [content, owner.to_bytes(), _key_line(key)]
        except RegistryRefused:
            return False

    def holds(self, name: str, instance_id: str) -> bool:
        """Tell whether `name` is registered here, and by `instance_id`."""
        with suppress(FileNotFoundError), self._directory(create=False) as directory:
            return _is_mine(directory, name, instance_id) and _read(directory, f"{name}.json") is not None
        return False

    def check(self) -> None:
        """Make the directory if it is missing, and raise `RegistryRefused` if it cannot be used."""
        with self._directory() as directory:
            _replace(directory, _CHECK_FILE, b"")
            os.unlink(_CHECK_FILE, dir_fd=directory)

    def withdraw(self, name: str, instance_id: str, *, goodbye: bytes | None = None) -> None:
        """Remove what `instance_id` registered as `name`, and nothing that has changed hands.

        With `goodbye`, the note stands in the file's place first, for `GOODBYE_SECONDS`.
        """
        with suppress(FileNotFoundError), self._directory(create=False) as directory:
            if goodbye is not None:
                with _locked(directory, name):
                    if not _is_mine(directory, name, instance_id):
                        return
                    if _read(directory, f"{name}.json") is not None:
                        _replace(directory, f"{name}.json", goodbye)
                time.sleep(GOODBYE_SECONDS)
            with _locked(directory, name):
                if _is_mine(directory, name, instance_id):
                    _remove(directory, name)

    def dead(self, hostname: str | None = None) -> list[str]:
        """Return the names whose owner is known and no longer lives; with `hostname`, only those from that machine.

        Machines that share the directory do not see each other's processes: to each the others' seem dead.
        """
        with suppress(FileNotFoundError), self._directory(create=False) as directory:
            entries = os.listdir(directory)  # noqa: PTH208 - pathlib lists no descriptors
            claimed = (match[1] for entry in entries if (match := _OWNER_FILE.fullmatch(entry)))
            return sorted(name for name in claimed if _has_dead_owner(directory, name, hostname))
        return []

    def remove_dead(self, name: str, hostname: str | None = None) -> bool:
        """Remove the registration of `name` if it is one of `dead(hostname)`; tell whether it was removed."""
        with suppress(FileNotFoundError), self._directory(create=False) as directory, _locked(directory, name):
            if _has_dead_owner(directory, name, hostname):
                _remove(directory, name)
                return True
        return False

    def _take(self, directory: int, name: str, owner: Owner) -> None:
        held = _owner(directory, name)
        if held and held.instance_id != owner.instance_id:
            machine = _hostname(directory, name)
            if machine not in (None, socket.gethostname()):
                raise NameTaken(
                    f"the name {name!r} is held on the machine {machine!a}, which has this directory too and whose "
                    f"processes are not seen from here (if that machine is gone, remove {self.path}/.{name}.owner)"
                )
            if held.lives():
                raise NameTaken(f"the name {name!r} is held by the OpenCode of process {held.pid} on this machine")
        if held != owner:
            _replace(directory, f".{name}.owner", owner.to_bytes())

    def _put_key(self, directory: int, name: str, key: str | None) -> None:
        line = _key_line(key)
        if line is None:
            with suppress(FileNotFoundError):
                os.unlink(f".{name}.key", dir_fd=directory)
        elif _read(directory, f".{name}.key") != line:
            _replace(directory, f".{name}.key", line)

    @contextmanager
    def _directory(self, *, create: bool = True) -> Iterator[int]:
        """Open the directory, made with mode 0700 if it is missing, and refuse one that others can tamper with."""
        try:
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileExistsError):
                    self.path.mkdir(mode=0o700)
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if not create and error.errno == errno.ENOENT:
                raise
            raise RegistryRefused(self._refusal(_unusable(self.path, error))) from error
        try:
            found = os.fstat(directory)
            if found.st_uid != os.geteuid():
                raise RegistryRefused(self._refusal(f"belongs to another user (uid {found.st_uid})"))
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise RegistryRefused(self._refusal(f"may be written by others: chmod 700 {self.path}, or"))
            yield directory
        except OSError as error:
            raise RegistryRefused(f"the registry directory {self.path}: {error.strerror or error}") from error
        finally:
            os.close(directory)

    def _refusal(self, why: str) -> str:
        glue = " " if why.endswith(" or") else "; "
        return f"the registry directory {self.path} {why}{glue}set RELAY_REGISTRY_DIR to a directory of your own"


def _key_line(key: str | None) -> bytes | None:
    return None if key is None else f"{key}\n".encode()


def _unusable(path: Path, error: OSError) -> str:
    if path.is_symlink():
        return "is a symlink"
    if path.exists() and not path.is_dir():
        return "is not a directory"
    return f"cannot be used ({error.strerror})"


@contextmanager
def _locked(directory: int, name: str) -> Iterator[None]:
    """Hold the lock directory of `name`."""
    lock = f".{name}.lock"
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            os.mkdir(lock, 0o700, dir_fd=directory)
            break
        except FileExistsError:
            if _break_dead_lock(directory, lock):
                continue
            if time.monotonic() > deadline:
                machine = _locker(directory, lock)[1]
                raise RegistryRefused(
                    f"{lock} in the registry directory has been held for {_LOCK_SECONDS:.0f} s"
                    + (f" on the machine {machine!a}: if that is gone, remove it" if machine else "")
                ) from None
            time.sleep(_LOCK_RETRY_SECONDS)
    try:
        _write_new(directory, f"{lock}/pid", f"{os.getpid()}\n{socket.gethostname()}\n".encode())
        yield
    finally:
        _remove_lock(directory, lock)


def _break_dead_lock(directory: int, lock: str) -> bool:
    """Remove the lock if whoever made it is dead. Breakers take turns, so that none breaks a newer lock.

    That of another machine stays: its processes are not seen from here.
    """
    fcntl.flock(directory, fcntl.LOCK_EX)
    try:
        holder, machine = _locker(directory, lock)
        if holder and machine not in ("", socket.gethostname()):
            dead = False
        elif holder:
            dead = not processes.lives(holder, "")
        else:
            age = time.time() - os.stat(lock, dir_fd=directory, follow_symlinks=False).st_mtime
            dead = age > _UNSIGNED_LOCK_SECONDS
        if dead:
            _remove_lock(directory, lock)
    except FileNotFoundError:
        return True
    finally:
        fcntl.flock(directory, fcntl.LOCK_UN)
    return dead


def _locker(directory: int, lock: str) -> tuple[int, str]:
    """Return the process that holds the lock and its machine; 0 and empty where that is not told."""
    pid, _, machine = (_read(directory, f"{lock}/pid") or b"").decode(errors="replace").partition("\n")
    return int(pid) if pid.isdecimal() else 0, machine.strip()


def _remove_lock(directory: int, lock: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(f"{lock}/pid", dir_fd=directory)
    with suppress(FileNotFoundError):
        os.rmdir(lock, dir_fd=directory)


def _owner(directory: int, name: str) -> Owner | None:
    match = _OWNER.fullmatch(_read(directory, f".{name}.owner") or b"")
    if match is None:
        return None
    return Owner(match[1].decode(), int(match[2]), match[3].decode(errors="replace"), (match[4] or b"").decode())


def _is_mine(directory: int, name: str, instance_id: str) -> bool:
    owner = _owner(directory, name)
    return owner is not None and owner.instance_id == instance_id


def _has_dead_owner(directory: int, name: str, hostname: str | None) -> bool:
    owner = _owner(directory, name)
    if owner is None or owner.lives():
        return False
    return hostname is None or _hostname(directory, name) == hostname


def _hostname(directory: int, name: str) -> object:
    """Return what the registration calls its machine; None if there is none that can be read."""
    try:
        return json.loads(_read(directory, f"{name}.json") or b"").get("hostname")
    except (ValueError, AttributeError, RecursionError):
        return None


def _remove(directory: int, name: str) -> None:
    for file in (f"{name}.json", f".{name}.key", f".{name}.owner"):
        with suppress(FileNotFoundError):
            os.unlink(file, dir_fd=directory)


def _read(directory: int, file: str) -> bytes | None:
    """Return a regular file's content, or None if there is none of a sensible size."""
    try:
        descriptor = os.open(file, _READ, dir_fd=directory)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = os.read(descriptor, _MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    return content if len(content) <= _MAX_FILE_BYTES else None


def _replace(directory: int, file: str, content: bytes) -> None:
    """Write `file` so that readers see the old content or the new, never a part."""
    temporary = f".{os.urandom(8).hex()}.tmp"
    try:
        _write_new(directory, temporary, content)
        os.rename(temporary, file, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise


def _write_new(directory: int, file: str, content: bytes) -> None:
    descriptor = os.open(file, _CREATE, 0o600, dir_fd=directory)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
