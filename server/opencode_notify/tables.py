"""The tables of what is to be told, has been and by which way: `notify.sqlite3` in the sender's directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_common import database

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

DIRECTORY: Final = "notify"
"""In the journal's: what was told, and the lock of whoever sends."""
FILE_NAME: Final = "notify.sqlite3"
_PATIENCE: Final = 2.0
MIGRATIONS: Final = (
    """
    CREATE TABLE about (one INTEGER PRIMARY KEY CHECK (one = 1), cursor TEXT NOT NULL, told_until REAL NOT NULL);
    CREATE TABLE turns (
        instance TEXT NOT NULL, session TEXT NOT NULL, started_at REAL NOT NULL, PRIMARY KEY (instance, session)
    );
    CREATE TABLE items (
        person TEXT NOT NULL, key TEXT NOT NULL, event TEXT NOT NULL, instance TEXT NOT NULL, at REAL NOT NULL,
        title TEXT NOT NULL, about TEXT NOT NULL, is_open INTEGER NOT NULL, found_at REAL NOT NULL, message TEXT,
        settled_at REAL, PRIMARY KEY (person, key)
    );
    CREATE INDEX items_of_message ON items (message);
    CREATE INDEX items_untold ON items (person, found_at) WHERE message IS NULL AND settled_at IS NULL;
    CREATE INDEX items_unsettled ON items (person) WHERE is_open AND settled_at IS NULL;
    CREATE TABLE messages (
        id TEXT PRIMARY KEY, person TEXT NOT NULL, made_at REAL NOT NULL, escalated_at REAL NOT NULL
    );
    CREATE INDEX messages_of_person ON messages (person, made_at);
    CREATE TABLE deliveries (
        message TEXT NOT NULL, person TEXT NOT NULL, outlet TEXT NOT NULL, state TEXT NOT NULL, due_at REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, owner TEXT NOT NULL DEFAULT '', lease_until REAL NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '', accepted_at REAL, shown_at REAL, opened_at REAL, decided_at REAL,
        PRIMARY KEY (message, outlet)
    );
    CREATE INDEX deliveries_due ON deliveries (due_at) WHERE state IN ('due', 'withdraw');
    CREATE TABLE outlets (
        person TEXT NOT NULL, outlet TEXT NOT NULL, disabled_at REAL, failed_at REAL, accepted_at REAL,
        reason TEXT NOT NULL DEFAULT '', PRIMARY KEY (person, outlet)
    )
    """,
    "ALTER TABLE outlets ADD COLUMN failing_since REAL",
)
"""`deliveries.state`: due, sent, failed, dropped (settled before it was sent), withdraw (to be), withdrawn."""


def open_tables(directory: Path) -> sqlite3.Connection:
    """Open them, and make the directory and the file for this account alone where they are missing.

    Raises:
        OSError: the directory or the file is not this account's alone, or cannot be made.
        DatabaseError: the file does not serve.
    """
    database.make_private_directory(directory)
    path = directory / FILE_NAME
    database.make_private_file(path)
    database.check_private_file(path)
    connection = database.connect(path, _PATIENCE)
    try:
        with database.database_errors():
            connection.execute("PRAGMA journal_mode = WAL")
            # What was sent must not be forgotten by a power cut: it would be sent again.
            connection.execute("PRAGMA synchronous = FULL")
        database.migrate(connection, MIGRATIONS)
    except BaseException:
        connection.close()
        raise
    return connection
