"""Read and write the gateway's files, as the gateway's account.

    python -I -m opencode_relay.backup.gateway_files read DIR          a tar on standard output
    python -I -m opencode_relay.backup.gateway_files write DIR         a tar on standard input; says what it changed

That account can put links and pipes into its directory, which root must not follow. Databases are copied through
SQLite's own way, also into one that is in use: the service may run meanwhile. Only the standard library.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from opencode_relay.backup.tar import pack, unpack

_WANTED: Final = re.compile(r"gateway\.sqlite3|users\.json|notify\.json|[a-z]{1,20}\.key")
_DATABASE: Final = ".sqlite3"
_JOURNAL: Final = slice(18, 20)
"""Of a database file: who writes and who reads it uses a write-ahead log (2) or none (1)."""
_BUSY_SECONDS: Final = 10.0
_MAX_DATABASE: Final = 256 * 1024 * 1024
_MAX_FILE: Final = 64 * 1024 * 1024
"""Bytes. The gateway could make its files as large as it likes, and they are read into root's memory."""
_DAMAGED: Final = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def read(directory: Path) -> bytes:
    """Return a tar of what is to be kept of the directory. Raises `OSError`, `sqlite3.Error`."""
    files = {}
    for name in sorted(os.listdir(directory)):  # noqa: PTH208 # names are what is matched
        if _WANTED.fullmatch(name):
            path = directory / name
            files[name] = _dump(path) if name.endswith(_DATABASE) else _content(path)
    return pack(files)


def write(directory: Path, content: bytes) -> list[str]:
    """Have the directory hold the files of a tar and no other of their kind; return the names of what changed.

    Raises `OSError`, `sqlite3.Error`, and `ValueError` for a tar that holds anything else.
    """
    files = unpack(content)
    if stray := [name for name in files if not _WANTED.fullmatch(name)]:
        raise ValueError(f"{stray[0]!a} is none of the gateway's files")
    changed = []
    # The database last: what it names is there then.
    for name in sorted(files, key=lambda name: name.endswith(_DATABASE)):
        put = _load if name.endswith(_DATABASE) else _put
        if put(directory / name, files[name]):
            changed.append(name)
    # People of before would go on logging in.
    for name in sorted(os.listdir(directory)):  # noqa: PTH208 # names are what is matched
        if _WANTED.fullmatch(name) and name not in files and not name.endswith(_DATABASE):
            (directory / name).unlink()
            changed.append(name)
    return changed


def _content(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 # a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        content = file.read(_MAX_FILE + 1)
    _check_size(path, len(content), _MAX_FILE)
    return content


def _check_size(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit // 1024 // 1024} MB", str(path))


def _dump(path: Path) -> bytes:
    """Return a database as it is at one moment, as one file without a log beside it."""
    _check_size(path, path.stat().st_size, _MAX_DATABASE)
    source = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
    with closing(source), closing(sqlite3.connect(":memory:")) as copy:
        source.backup(copy)
        content = bytearray(copy.serialize())
    content[_JOURNAL] = b"\x01\x01"
    return bytes(content)


def _load(path: Path, content: bytes) -> bool:
    """Make the database hold what `content` holds; return whether it did not."""
    with closing(sqlite3.connect(":memory:")) as source:
        source.deserialize(content)
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as target:
            if _is_same(source, target):
                return False
            try:
                source.backup(target)
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode not in _DAMAGED:
                    raise
            else:
                return True
        # A damaged one is what a backup is for.
        for suffix in ("-wal", "-shm", "-journal", ""):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as target:
            source.backup(target)
    return True


def _is_same(source: sqlite3.Connection, target: sqlite3.Connection) -> bool:
    """Tell whether both hold the same; what cannot be read is another."""
    try:
        versions = [one.execute("PRAGMA user_version").fetchone() for one in (source, target)]
        return versions[0] == versions[1] and list(source.iterdump()) == list(target.iterdump())
    except sqlite3.Error:
        return False


def _put(path: Path, content: bytes) -> bool:
    """Put the file there whole, unless it is there already; return whether it was not."""
    try:
        if _content(path) == content:
            return False
    except FileNotFoundError:
        pass
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 # a descriptor, not a path
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return True


def main(verb: str, directory: str) -> int:
    """Do it; return the exit code, after one line on standard error where it could not be done."""
    try:
        if verb == "read":
            sys.stdout.buffer.write(read(Path(directory)))
        else:
            print("\n".join(write(Path(directory), sys.stdin.buffer.read())))
    except OSError as error:
        print(f"{error.filename or directory}: {error.strerror}", file=sys.stderr)
    except (sqlite3.Error, ValueError) as error:
        print(f"{directory}: {error}", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
