"""The tables of a journal, in a file or in memory. All methods raise `DatabaseError` where the database fails."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from opencode_common import database
from opencode_journal.cursor import new_epoch
from opencode_journal.entries import KEPT, Entry

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator

MIGRATIONS: Final = (
    """
    CREATE TABLE about (one INTEGER PRIMARY KEY CHECK (one = 1), epoch TEXT NOT NULL, boot TEXT NOT NULL) STRICT;
    CREATE TABLE entries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, instance TEXT NOT NULL,
        session TEXT NOT NULL, ask TEXT NOT NULL, data TEXT NOT NULL) STRICT;
    CREATE TABLE handles (
        number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, instance TEXT NOT NULL, id TEXT NOT NULL,
        used_at REAL NOT NULL, UNIQUE (kind, instance, id)) STRICT;
    CREATE TABLE states (key TEXT PRIMARY KEY, value TEXT NOT NULL, set_at REAL NOT NULL) STRICT
    """,
    """
    ALTER TABLE about ADD COLUMN entry_bytes INTEGER NOT NULL DEFAULT 0;
    UPDATE about SET entry_bytes = (
        SELECT coalesce(sum(length(CAST(instance || session || ask || data AS BLOB)) + 100), 0) FROM entries)
    """,
)
"""One that was released is never changed: see `database.migrate`. AUTOINCREMENT gives no number out twice."""
_AFTER_BOOT: Final = 100_000
"""Numbers left out: a power cut may take the last entries, and a cursor may stand behind them."""
_AFTER_REMOVAL: Final = 1_000
"""Handles left out: another copy may give out some more from a file that was removed."""
EDITION: Final = "~"
"""Between a thing's id and what tells one edition of it from another."""
_DAY: Final = 86_400
_BYTES: Final = "length(CAST(instance || session || ask || data AS BLOB)) + 100"
"""Of an entry, about: they are counted as they come and go, as to add them all up takes long."""
_WITHOUT_SEQ: Final = "at, kind, instance, session, ask, data"


class Rows:
    """A journal's tables through one connection, used by one thread.

    Args:
        connection: see `database.connect`.
        boot: what tells this boot of the machine from others.
    """

    def __init__(self, connection: sqlite3.Connection, boot: str) -> None:
        self._db = connection
        with database.database_errors():
            # Nobody who reads or opens waits for a writer, and no writer for the disk unless it wants to.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if database.schema_version(connection) != len(MIGRATIONS):
                database.migrate(connection, MIGRATIONS)
            self.epoch = self._begin(boot)
            self._seen_version = self._data_version()

    def _begin(self, boot: str) -> str:
        """Return the epoch, which is made with the file."""
        about = self._db.execute("SELECT epoch, boot FROM about").fetchone()
        if about is not None and about["boot"] == boot:
            return str(about["epoch"])
        with database.transaction(self._db):
            # Meanwhile another process may have done it.
            about = self._db.execute("SELECT epoch, boot FROM about").fetchone()
            if about is None:
                self._db.execute("INSERT INTO about (one, epoch, boot) VALUES (1, ?, ?)", (new_epoch(), boot))
            elif about["boot"] != boot:
                self._db.execute("UPDATE about SET boot = ?", (boot,))
                self._skip_to("entries", self.last_seq + _AFTER_BOOT)
            return str(self._db.execute("SELECT epoch FROM about").fetchone()["epoch"])

    def _skip_to(self, table: str, number: int) -> None:
        self._db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        self._db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))

    def _last_number(self, table: str) -> int:
        found = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        return 0 if found is None else int(found["seq"])

    def _data_version(self) -> int:
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """Write all that is done meanwhile, or nothing; `durable`: it then survives a power cut."""
        with database.database_errors():
            if durable:
                self._db.execute("PRAGMA synchronous = FULL")
            try:
                with database.transaction(self._db):
                    yield
            finally:
                if durable:
                    self._db.execute("PRAGMA synchronous = NORMAL")

    @contextmanager
    def view(self) -> Iterator[None]:
        """Let all that is read meanwhile be of one moment."""
        if self._db.in_transaction:
            yield
            return
        with database.transaction(self._db, write=False):
            yield

    @property
    def last_seq(self) -> int:
        """The number of the newest entry that there ever was, or one that was left out after it."""
        with database.database_errors():
            return self._last_number("entries")

    @property
    def first_seq(self) -> int:
        """The number of the oldest entry that is left; of the next one if there is none."""
        with database.database_errors():
            found = self._db.execute("SELECT min(seq) FROM entries").fetchone()[0]
            return self._last_number("entries") + 1 if found is None else int(found)

    def append(self, entry: Entry, data: str) -> int:
        """Add an entry, whose `seq` does not count, with its data as JSON; return its number.

        Call it in a transaction.
        """
        with database.database_errors():
            cursor = self._db.execute(
                f"INSERT INTO entries ({_WITHOUT_SEQ}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 # a constant
                (entry.at, entry.kind, entry.instance, entry.session, entry.ask, data),
            )
            self._count_entries("seq = ?", cursor.lastrowid or 0)
        return int(cursor.lastrowid or 0)

    def since(self, seq: int, limit: int, kinds: Collection[str] | None) -> list[Entry]:
        """Return the first `limit` entries after `seq`, the oldest first."""
        return self._entries("seq > ?", (seq,), "seq", limit, kinds)

    def latest(self, limit: int, kinds: Collection[str] | None) -> list[Entry]:
        """Return the last `limit` entries, the oldest first."""
        return self._entries("TRUE", (), "seq DESC", limit, kinds)[::-1]

    def _entries(
        self, which: str, values: tuple[int, ...], order: str, limit: int, kinds: Collection[str] | None
    ) -> list[Entry]:
        of_kinds = "" if kinds is None else f"AND kind IN ({','.join('?' * len(kinds))})"
        found = self.read(
            f"SELECT * FROM entries WHERE {which} {of_kinds} ORDER BY {order} LIMIT ?",  # noqa: S608 # texts of ours
            *values,
            *(kinds or ()),
            limit,
        )
        return [Entry(**{**row, "data": json.loads(row["data"])}) for row in map(dict, found)]

    def prune(self, before: float, max_bytes: int, batch: int) -> int:
        """Remove at most `batch` entries, which are older than `before` or too much; return how many.

        The oldest go first, up to the first that stays: what is left has no holes, though clocks be set.
        Handles that nobody used and states that nobody set since `before` go as well, but for those to be `KEPT`.
        """
        with self.transaction(durable=False):
            too_much = self._db.execute("SELECT entry_bytes FROM about").fetchone()[0] - max_bytes
            count, last = 0, 0
            for row in self._db.execute(
                f"SELECT seq, at, {_BYTES} AS bytes FROM entries ORDER BY seq LIMIT ?",  # noqa: S608 # a constant
                (batch,),
            ).fetchall():
                if too_much <= 0 and row["at"] >= before:
                    break
                count, last, too_much = count + 1, row["seq"], too_much - row["bytes"]
            if count:
                self._count_entries("seq <= ?", last, sign="-")
                self._db.execute("DELETE FROM entries WHERE seq <= ?", (last,))
            self._db.execute("DELETE FROM handles WHERE used_at < ?", (before,))
            # By their keys, as it would take long to look through what is kept, which may be files.
            self._db.execute("DELETE FROM states WHERE key < ? AND set_at < ?", (KEPT, before))
            self._db.execute("DELETE FROM states WHERE key >= ? AND set_at < ?", (_behind(KEPT), before))
        return count

    def _count_entries(self, which: str, *values: int, sign: str = "+") -> None:
        self._db.execute(
            f"UPDATE about SET entry_bytes = entry_bytes {sign} "  # noqa: S608 # texts of ours
            f"(SELECT coalesce(sum({_BYTES}), 0) FROM entries WHERE {which})",
            values,
        )

    def number(self, kind: str, instance: str, id_: str, now: float) -> int | None:
        """Return the number of a thing's handle, and note once a day that it is used."""
        thing = (kind, instance, id_)
        with database.database_errors():
            found = self._db.execute(
                "SELECT number, used_at FROM handles WHERE kind = ? AND instance = ? AND id = ?", thing
            ).fetchone()
            if found is None:
                return None
            self._use(found, now)
            return int(found["number"])

    def latest_number(self, kind: str, instance: str, id_: str, now: float) -> int | None:
        """Return the greatest number among those of `id_` and of its editions; see `Journal.latest_handle`."""
        with database.database_errors():
            found = self._db.execute(
                "SELECT number, used_at FROM handles WHERE kind = ? AND instance = ?"
                " AND (id = ? OR id > ? AND id < ?) ORDER BY number DESC LIMIT 1",
                (kind, instance, id_, f"{id_}{EDITION}", _behind(f"{id_}{EDITION}")),
            ).fetchone()
            if found is None:
                return None
            self._use(found, now)
            return int(found["number"])

    def become_edition(self, kind: str, instance: str, id_: str) -> None:
        """Give the number of a thing of which no edition was known to this one; call it in a transaction."""
        with database.database_errors():
            self._db.execute(
                "UPDATE OR IGNORE handles SET id = ? WHERE kind = ? AND instance = ? AND id = ?",
                (id_, kind, instance, id_.partition(EDITION)[0]),
            )

    def _use(self, handle: sqlite3.Row, now: float) -> None:
        if abs(now - handle["used_at"]) > _DAY:
            self._db.execute("UPDATE handles SET used_at = ? WHERE number = ?", (now, handle["number"]))

    def new_number(self, kind: str, instance: str, id_: str, now: float) -> int:
        """Give a number to a thing that has none; call it in a transaction in which `number` returned None."""
        with database.database_errors():
            cursor = self._db.execute(
                "INSERT INTO handles (kind, instance, id, used_at) VALUES (?, ?, ?, ?)", (kind, instance, id_, now)
            )
        return int(cursor.lastrowid or 0)

    def thing(self, kind: str, number: int, now: float) -> tuple[str, str] | None:
        """Return instance and id of what has this handle, and note once a day that it is used."""
        with database.database_errors():
            found = self._db.execute("SELECT * FROM handles WHERE number = ? AND kind = ?", (number, kind)).fetchone()
            if found is None:
                return None
            self._use(found, now)
        return found["instance"], found["id"]

    def knows(self, instance: str) -> bool:
        """Whether anything of this instance has a handle, or an entry tells of it."""
        found = self.read(
            "SELECT 1 FROM handles WHERE kind IN ('a', 'm', 's') AND instance = ?"
            " UNION ALL SELECT 1 FROM entries WHERE instance = ? LIMIT 1",
            instance,
            instance,
        )
        return bool(found)

    def state(self, key: str) -> Any:
        """Return what was set under `key`; None if nothing was."""
        with database.database_errors():
            found = self._db.execute("SELECT value FROM states WHERE key = ?", (key,)).fetchone()
        return None if found is None else json.loads(found["value"])

    def states(self, prefix: str) -> dict[str, Any]:
        """Return what was set under all keys that begin with `prefix`, which is not empty."""
        found = self.read("SELECT key, value FROM states WHERE key >= ? AND key < ?", prefix, _behind(prefix))
        return {row["key"]: json.loads(row["value"]) for row in found}

    def state_keys(self, prefix: str) -> list[str]:
        """Return all keys that begin with `prefix`, which is not empty."""
        found = self.read("SELECT key FROM states WHERE key >= ? AND key < ?", prefix, _behind(prefix))
        return [row["key"] for row in found]

    def set_state(self, key: str, value: str | None, now: float) -> None:
        """Set JSON under `key`, or remove it."""
        with database.database_errors():
            if value is None:
                self._db.execute("DELETE FROM states WHERE key = ?", (key,))
            else:
                self._db.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (key, value, now))

    def number_handles_beyond(self, number: int) -> None:
        """Give out no handle up to `number`, nor of those that another journal may have given out after it."""
        with self.transaction(durable=False):
            self._number_handles_beyond(number)

    def _number_handles_beyond(self, number: int) -> None:
        if self._last_number("handles") < number:
            self._skip_to("handles", number + _AFTER_REMOVAL)

    def last_handle(self) -> int:
        """Return the greatest number that a handle ever had, or that was left out."""
        with database.database_errors():
            return self._last_number("handles")

    def inherit(self, other: Rows, last_handle: int) -> frozenset[str]:
        """Take over another journal's states, but those `KEPT`, and its handles as `take_handles` does.

        Returns the keys of the states.
        """
        with self.transaction(durable=False):
            self._take_handles(other, last_handle)
            return self._take_states(other)

    def take_handles(self, other: Rows, last_handle: int) -> None:
        """Take over the handles of another journal up to a number; new ones go beyond it."""
        with self.transaction(durable=True):
            self._take_handles(other, last_handle)

    def take_in(self, other: Rows, last_handle: int, inherited: frozenset[str]) -> None:
        """Take back what another journal, which had the states with the keys `inherited` from this one, has become.

        Its entries are appended under new numbers. States that it has not any more are removed.
        """
        with self.transaction(durable=True):
            self._take_handles(other, last_handle)
            removed = inherited - self._take_states(other)
            self._db.executemany("DELETE FROM states WHERE key = ?", [(key,) for key in removed])
            last_seq = self.last_seq
            self._db.executemany(
                f"INSERT INTO entries ({_WITHOUT_SEQ}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 # a constant
                other.read(f"SELECT {_WITHOUT_SEQ} FROM entries ORDER BY seq"),  # noqa: S608 # a constant
            )
            self._count_entries("seq > ?", last_seq)

    def _take_handles(self, other: Rows, last_handle: int) -> None:
        self._number_handles_beyond(last_handle)
        self._db.executemany(
            "INSERT OR IGNORE INTO handles VALUES (?, ?, ?, ?, ?)",
            other.read("SELECT * FROM handles WHERE number <= ?", last_handle),
        )

    def _take_states(self, other: Rows) -> frozenset[str]:
        states = other.read("SELECT * FROM states WHERE NOT (key >= ? AND key < ?)", KEPT, _behind(KEPT))
        self._db.executemany("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", states)
        return frozenset(row["key"] for row in states)

    def read(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Return all that a query finds."""
        with database.database_errors():
            return self._db.execute(query, values).fetchall()

    def wait_for_others(self, patience: float) -> None:
        """Let statements wait `patience` seconds for other programs from now on."""
        with database.database_errors():
            self._db.execute(f"PRAGMA busy_timeout = {patience * 1000:.0f}")

    def changed_elsewhere(self) -> bool:
        """Whether another connection has written since this was asked last.

        Raises:
            DatabaseNewer: a later version of the program has changed the tables.
        """
        with database.database_errors():
            version = self._data_version()
            if version == self._seen_version:
                return False
            self._seen_version = version
            if database.schema_version(self._db) > len(MIGRATIONS):
                raise database.DatabaseNewer("a later version of the program has changed it meanwhile")
        return True

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


def _behind(prefix: str) -> str:
    """Return the first text behind all that begin with `prefix`."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
