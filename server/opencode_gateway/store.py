"""What the gateway remembers: one SQLite file, opened by the service and by commands at the same time.

Tokens and codes are in it as SHA-256 alone: who reads the file can use none of them.

Reads have a connection of their own, which in a write-ahead log waits for no writer: they may stand in the event
loop. Writes wait for the file's one lock, which another process may hold, and for the disk: the service makes them
in one thread of the store's own (`Store.write`), commands where they are (`Store.transaction`).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from opencode_common.database import (
    DatabaseBusy,
    DatabaseDamaged,
    DatabaseError,
    DatabaseFull,
    DatabaseNewer,
    connect,
    database_errors,
    make_private_file,
    migrate,
    transaction,
)
from opencode_gateway.errors import CommandRefused, StoreError, StoreLocked

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
FILE_NAME: Final = "gateway.sqlite3"
_BUSY_MILLISECONDS: Final = 2000
"""How long a write waits for its turn, in this process and among all."""
_READ_MILLISECONDS: Final = 100
"""A read waits for nobody but who recovers or removes the log, which nobody does while we have the file open."""
MAX_WAITING: Final = 256
"""Writes of the service; more at once are answered as those that waited too long."""
_JOURNAL: Final = slice(18, 20)
"""Of a database file: who writes and who reads it uses a write-ahead log (2) or none (1)."""
_MIGRATIONS: Final = (
    """
    CREATE TABLE enrolment (
        one INTEGER PRIMARY KEY CHECK (one = 1), opened_at REAL NOT NULL, open_until REAL NOT NULL) STRICT;
    CREATE TABLE clients (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, document INTEGER NOT NULL, redirect_uris TEXT NOT NULL,
        created_at REAL NOT NULL, granted_at REAL) STRICT;
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY, login TEXT NOT NULL, client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
        capabilities TEXT NOT NULL, resource TEXT NOT NULL, created_at REAL NOT NULL,
        refreshed_at REAL NOT NULL) STRICT;
    CREATE INDEX sessions_by_client ON sessions (client_id);
    CREATE INDEX sessions_by_login ON sessions (login);
    CREATE TABLE codes (
        hash BLOB PRIMARY KEY, client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE, login TEXT NOT NULL,
        capabilities TEXT NOT NULL, resource TEXT NOT NULL, challenge TEXT NOT NULL, redirect_uri TEXT NOT NULL,
        redirect_uri_explicit INTEGER NOT NULL, expires_at REAL NOT NULL, session_id TEXT) STRICT;
    CREATE INDEX codes_by_client ON codes (client_id);
    CREATE INDEX codes_by_expiry ON codes (expires_at);
    CREATE TABLE tokens (
        hash BLOB PRIMARY KEY, session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
        kind TEXT NOT NULL CHECK (kind IN ('access', 'refresh')), capabilities TEXT NOT NULL,
        created_at REAL NOT NULL, expires_at REAL NOT NULL, replaced_at REAL) STRICT;
    CREATE INDEX tokens_by_session ON tokens (session_id);
    CREATE INDEX tokens_by_expiry ON tokens (expires_at);
    CREATE TABLE machine_tokens (
        name TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, capabilities TEXT NOT NULL,
        created_at REAL NOT NULL, expires_at REAL) STRICT;
    """,
    # People of an identity provider have sessions like everybody. Before, their tokens were not in `tokens`, and what
    # FastMCP kept for them was in a table of its own: these sessions end here, and the people log in anew.
    """
    ALTER TABLE sessions ADD COLUMN kind TEXT NOT NULL DEFAULT 'password';
    ALTER TABLE sessions ADD COLUMN renewal BLOB;
    ALTER TABLE sessions ADD COLUMN recheck_at REAL;
    CREATE INDEX sessions_by_end ON sessions (recheck_at) WHERE renewal IS NULL;
    ALTER TABLE codes ADD COLUMN kind TEXT NOT NULL DEFAULT 'password';
    ALTER TABLE codes ADD COLUMN renewal BLOB;
    ALTER TABLE codes ADD COLUMN recheck_at REAL;
    DELETE FROM sessions WHERE NOT EXISTS (SELECT 1 FROM tokens WHERE session_id = sessions.id);
    DROP TABLE IF EXISTS provider_state;
    """,
    # admit: who may renew a document's client without a window; clients that were revoked while they could still be
    # granted something; of which refresh token a token is a successor, and when one of its successors was used.
    """
    CREATE TABLE renewals (
        client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE, login TEXT NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (client_id, login)) STRICT;
    CREATE TABLE revoked_clients (id TEXT PRIMARY KEY, at REAL NOT NULL) STRICT;
    ALTER TABLE tokens ADD COLUMN parent BLOB;
    ALTER TABLE tokens ADD COLUMN confirmed_at REAL;
    UPDATE tokens SET confirmed_at = replaced_at WHERE replaced_at IS NOT NULL;
    CREATE INDEX tokens_by_parent ON tokens (parent);
    """,
    # known: what `clients enable` and `disable` say, whom a window is opened for, and whom it let in
    """
    CREATE TABLE known_clients (name TEXT PRIMARY KEY, enabled INTEGER NOT NULL, changed_at REAL NOT NULL) STRICT;
    ALTER TABLE enrolment ADD COLUMN opened_for TEXT NOT NULL DEFAULT '';
    ALTER TABLE clients ADD COLUMN let_in_as TEXT NOT NULL DEFAULT '';
    """,
    # keys: what a client proves itself with at the token endpoint; see `oauth.credentials`.
    """
    ALTER TABLE clients ADD COLUMN auth_method TEXT NOT NULL DEFAULT 'none' CHECK (
        auth_method IN ('none', 'private_key_jwt', 'client_secret_post', 'client_secret_basic'));
    ALTER TABLE clients ADD COLUMN secret_hash TEXT;
    ALTER TABLE clients ADD COLUMN jwks TEXT;
    ALTER TABLE clients ADD COLUMN jwks_uri TEXT;
    """,
    # door: what `refusal_log` keeps
    """
    CREATE TABLE refusals (
        kind TEXT NOT NULL, client TEXT NOT NULL, network TEXT NOT NULL, address TEXT NOT NULL, reason TEXT NOT NULL,
        remedy TEXT NOT NULL, count INTEGER NOT NULL, first_at REAL NOT NULL, last_at REAL NOT NULL,
        PRIMARY KEY (kind, client, network)) STRICT;
    """,
    # ends: when the owner last closed the window, with whatever was under way in it
    """
    ALTER TABLE enrolment ADD COLUMN closed_at REAL NOT NULL DEFAULT 0;
    """,
    # pages: who is logged in on our own pages, and by which credentials; see `pages.sessions`
    """
    CREATE TABLE page_sessions (
        id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, login TEXT NOT NULL, kind TEXT NOT NULL,
        credentials TEXT NOT NULL, created_at REAL NOT NULL, ends_at REAL NOT NULL) STRICT;
    CREATE INDEX page_sessions_by_login ON page_sessions (login);
    CREATE INDEX page_sessions_by_end ON page_sessions (ends_at);
    """,
    # passkeys: see `sign_in.passkey_rows`
    """
    CREATE TABLE passkeys (
        id TEXT PRIMARY KEY, login TEXT NOT NULL, name TEXT NOT NULL, site TEXT NOT NULL, created_at REAL NOT NULL,
        used_at REAL, credential BLOB NOT NULL UNIQUE, user_handle BLOB NOT NULL, public_key BLOB NOT NULL,
        sign_count INTEGER NOT NULL, transports TEXT NOT NULL) STRICT;
    CREATE INDEX passkeys_by_login ON passkeys (login);
    """,
)
"""One that was released is never changed: see `database.migrate`."""


def hashed(secret: str) -> bytes:
    """Return the form in which a token or code is stored. No salt: they are random, and are looked up by this."""
    return hashlib.sha256(secret.encode()).digest()


class Store:
    """The database. One connection writes and one reads, each used by one thread at a time.

    Args:
        path: made, with mode 0600, if it is missing; its directory must be there.

    Raises:
        StoreLocked: another program is writing to it.
        StoreError: it cannot be opened, or was written by a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing, self._reading = threading.RLock(), threading.RLock()
        self._writers = ThreadPoolExecutor(1, "store")
        self._waiting = 0
        self._deadline = threading.local()
        try:
            make_private_file(path)
            self._writer = connect(path, _BUSY_MILLISECONDS / 1000)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be opened: {error.strerror}; see that {path.parent} belongs to the service"
            ) from error
        except DatabaseError as error:
            raise _failure(f"{path} cannot be opened", error) from error
        try:
            with database_errors():
                self._prepare(self._writer)
                self._reader = connect(path, _READ_MILLISECONDS / 1000)
                self._reader.execute("PRAGMA query_only = ON")
        except DatabaseNewer as error:
            self._writer.close()
            raise StoreError(f"{path} was written by a later version: run that one, or restore a backup") from error
        except DatabaseError as error:
            self._writer.close()
            raise _failure(f"{path} cannot be used", error) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        # Writes are rare, and a revocation must outlive a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # Space that is freed shrinks the file again; what was in it is overwritten.
        connection.execute("PRAGMA secure_delete = ON")
        migrate(connection, _MIGRATIONS)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction, in the store's thread, and return what it returns: see `transaction`.

        The event loop goes on meanwhile. Whoever is cancelled while `work` runs does not end it.

        Raises:
            StoreError: too many wait, its turn did not come in two seconds, or the database is full or damaged.
        """
        if self._waiting >= MAX_WAITING:
            raise StoreError(f"{self.path} does not serve: {MAX_WAITING} writes wait for their turn")
        deadline = time.monotonic() + _BUSY_MILLISECONDS / 1000

        def in_turn() -> T:
            self._deadline.at = deadline
            with self.transaction() as db:
                return work(db)

        try:
            waits = asyncio.get_running_loop().run_in_executor(self._writers, in_turn)
        except RuntimeError as error:
            raise StoreError(f"{self.path} does not serve: {error}") from error
        self._waiting += 1
        try:
            return await waits
        finally:
            self._waiting -= 1

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction, committed at the end and rolled back by any exception.

        Args:
            write: False gives a consistent view that nothing can be changed through, and waits for nobody.

        Raises:
            StoreError: the database is locked for over two seconds, full or damaged.
        """
        lock, connection = (self._writing, self._writer) if write else (self._reading, self._reader)
        with lock:
            try:
                with database_errors():
                    if write:
                        connection.execute(f"PRAGMA busy_timeout = {self._patience()}")
                    with transaction(connection, write=write):
                        yield connection
            except DatabaseError as error:
                raise _failure(f"{self.path} does not serve", error) from error

    def _patience(self) -> int:
        """Return for how many milliseconds this thread may wait for the file's lock."""
        deadline: float | None = getattr(self._deadline, "at", None)
        if deadline is None:
            return _BUSY_MILLISECONDS
        return max(0, round(1000 * (deadline - time.monotonic())))

    def backup(self, target: Path) -> None:
        """Copy the database as it is now, while it is in use, to a new file of mode 0600.

        Raises:
            Refused: `target` is there already, or cannot be written.
            StoreError: the database cannot be read.
        """
        with self.transaction(write=False) as db:
            content = bytearray(db.serialize())
        # A backup is one file: no log beside it, not even where it is opened.
        content[_JOURNAL] = b"\x01\x01"
        # Its name is used once: whoever may write in that directory could put a link there meanwhile.
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
        try:
            descriptor = os.open(target, flags, 0o600)
        except FileExistsError:
            raise CommandRefused(f"{target} is there already: name a new file") from None
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                home = self.path.parent
                raise CommandRefused(
                    f"{target} cannot be written by uid {os.geteuid()}, to which {home} belongs: "
                    f"name a new file in {home}, and move it from there"
                ) from error
            raise CommandRefused(f"{target} cannot be written: {error.strerror}") from error
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 # a descriptor, not a path
                file.write(content)
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise CommandRefused(f"{target} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file, once what is being written is; the object is of no use afterwards."""
        self._writers.shutdown()
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()


def _failure(what: str, error: DatabaseError) -> StoreError:
    """Return the error for people, with the next step: a backup is put back over a damaged file, and no other."""
    if isinstance(error, DatabaseBusy):
        return StoreLocked(f"{what}: {error}; another program is writing to it: try again in a moment")
    helps = ""
    if isinstance(error, DatabaseFull):
        helps = "; make room on its disk"
    if isinstance(error, DatabaseDamaged):
        helps = "; stop the service, and put a backup of it back"
    return StoreError(f"{what}: {error}{helps}")
