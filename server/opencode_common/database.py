"""SQLite files that several processes of one account share: made, opened, migrated, written to, and their errors.

DatabaseError          it does not serve, and none of these says why
├── DatabaseBusy       another program has been writing for longer than we may wait
├── DatabaseFull       its disk, or the size that it may have, is used up
├── DatabaseDamaged    it is no database, or its contents are broken
└── DatabaseNewer      a later version of the program has written it
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_MAY_ANYTHING: Final = stat.S_IRWXG | stat.S_IRWXO


class DatabaseError(Exception):
    """The database does not serve; the message is what SQLite says."""


class DatabaseBusy(DatabaseError):
    """Another program has been writing to it for longer than we may wait."""


class DatabaseFull(DatabaseError):
    """Nothing more can be written: the disk is full."""


class DatabaseDamaged(DatabaseError):
    """It is no database, or a broken one."""


class DatabaseNewer(DatabaseError):
    """A later version of the program wrote it, whose tables we do not know."""


_KINDS: Final[dict[int, type[DatabaseError]]] = {
    sqlite3.SQLITE_BUSY: DatabaseBusy,
    sqlite3.SQLITE_LOCKED: DatabaseBusy,
    sqlite3.SQLITE_FULL: DatabaseFull,
    sqlite3.SQLITE_IOERR_SHMSIZE: DatabaseFull,
    sqlite3.SQLITE_CORRUPT: DatabaseDamaged,
    sqlite3.SQLITE_NOTADB: DatabaseDamaged,
}


def make_private_directory(path: Path) -> None:
    """Make a directory that is its owner's alone, and check the one that is there.

    Raises:
        PermissionError: it is somebody else's, or others may put files into it; `strerror` says which.
        OSError: it cannot be made, or is no directory.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(0, f"it belongs to uid {status.st_uid}, and this is uid {os.geteuid()}", str(path))
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise PermissionError(0, f"others may write into it: `chmod go-w {path}`", str(path))


def make_private_file(path: Path) -> None:
    """Make an empty file with mode 0600, unless it is there. Raises `OSError`.

    It is never opened where it is there: closing it would release the locks that this process has on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def check_private_file(path: Path) -> None:
    """See that a file is this account's alone.

    Raises:
        PermissionError: it is no regular file, somebody else's, or open to others; `strerror` says which.
        OSError: it is not there, or cannot be looked at.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise PermissionError(0, "it is no regular file", str(path))
    if status.st_uid != os.geteuid():
        raise PermissionError(0, f"it belongs to uid {status.st_uid}, and this is uid {os.geteuid()}", str(path))
    if status.st_mode & _OTHERS_MAY_ANYTHING:
        raise PermissionError(0, f"it is open to others: `chmod 600 {path}`", str(path))


def connect(path: Path | str, patience: float) -> sqlite3.Connection:
    """Open a database whose transactions begin and end where we say so; rows are read by name.

    `path`: of a file, or `:memory:`. `patience`: seconds that a statement waits for other programs.
    """
    with database_errors():
        connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


def connect_to_read(path: Path, patience: float) -> sqlite3.Connection:
    """Open a database that is there, to read it alone; see `connect`."""
    with database_errors():
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=patience, uri=True)
    connection.row_factory = sqlite3.Row
    return connection


def migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    """Bring the tables up to date, all at once or not at all.

    `migrations`: each is statements separated by `;`. `PRAGMA user_version` counts those that the file has had, so
    one that was released is never changed.

    Raises:
        DatabaseNewer: it has had more than there are.
        DatabaseError: see `database_errors`.
    """
    with transaction(connection):
        version = schema_version(connection)
        if version > len(migrations):
            raise DatabaseNewer(f"it has version {version}, and this program knows {len(migrations)}")
        for number, migration in enumerate(migrations[version:], version + 1):
            for statement in migration.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


def schema_version(connection: sqlite3.Connection) -> int:
    """Return how many migrations the file has had."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def transaction(connection: sqlite3.Connection, *, write: bool = True) -> Iterator[None]:
    """Commit at the end what is done meanwhile, and roll it back at any exception.

    `write`: False gives a view that stays as it is, and waits for no writer. Raises what `database_errors` does.
    """
    with database_errors():
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # A full disk and a damaged file have ended it already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn what SQLite raises into a `DatabaseError` of its kind."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        # The lower byte is the error, the others say more about it.
        kind = _KINDS.get(code) or _KINDS.get(code & 0xFF, DatabaseError)
        raise kind(str(error)) from error
