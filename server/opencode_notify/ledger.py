"""What is to be told, what was, and by which way; every change is whole and outlives a kill and a power cut.

A delivery is claimed under a lease before it is sent, and marked after it. Who ends between the two leaves a lease
that runs out; the delivery is then made again under the same id. All times are epoch seconds.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from opencode_common import database
from opencode_journal.cursor import Cursor
from opencode_journal.errors import NotACursor
from opencode_notify.delivery import Delivery, OutletState
from opencode_notify.due import Item
from opencode_notify.tables import open_tables

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from opencode_notify.due import DueEnds

Seen = Literal["shown", "opened"]
KEEP_SECONDS: Final = 14 * 86_400
"""What was told and is settled is kept so long, for `status`."""
MAX_MESSAGES: Final = 10_000
"""Of which the oldest that need nothing go before their time."""
MAX_TURNS: Final = 10_000
_NOT_OVER: Final = "('due', 'withdraw')"


class Ledger:
    """One connection to it; what its methods raise is `DatabaseError`."""

    def __init__(self, directory: Path) -> None:
        self._db = open_tables(directory)

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def together(self) -> AbstractContextManager[None]:
        """Do all of what follows in it, or nothing."""
        return database.transaction(self._db)

    def _all(self, query: str, *values: object) -> list[sqlite3.Row]:
        with database.database_errors():
            return self._db.execute(query, values).fetchall()

    def _do(self, query: str, *values: object) -> int:
        with database.database_errors():
            return self._db.execute(query, values).rowcount

    # -- what the journal was read for ------------------------------------------------------------------------------

    def read_until(self) -> tuple[Cursor | None, float]:
        """Return up to where ends were read, None at first, and when the last of them happened."""
        for row in self._all("SELECT cursor, told_until FROM about"):
            try:
                return Cursor.parse(row["cursor"]), row["told_until"]
            except NotACursor:
                return None, row["told_until"]
        return None, 0.0

    def started(self) -> dict[tuple[str, str], float]:
        """Return since when turns run, by instance and session."""
        return {(row["instance"], row["session"]): row["started_at"] for row in self._all("SELECT * FROM turns")}

    def note_read(self, ends: DueEnds) -> None:
        """Write down up to where ends were read; call it in the transaction that adds them."""
        self._do(
            "INSERT INTO about VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE"
            " SET cursor = excluded.cursor, told_until = max(told_until, excluded.told_until)",
            str(ends.cursor),
            ends.last_at,
        )
        self._db.executemany("DELETE FROM turns WHERE instance = ? AND session = ?", ends.over)
        self._db.executemany(
            "INSERT OR REPLACE INTO turns VALUES (?, ?, ?)", [(*turn, at) for turn, at in ends.started.items()]
        )

    def add(self, person: str, items: Iterable[Item], now: float) -> None:
        """Add what a person must be told, as far as it is new."""
        self._db.executemany(
            "INSERT OR IGNORE INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            [
                (person, each.key, each.event, each.instance, each.at, each.title, each.about, each.is_open, now)
                for each in items
            ],
        )

    def settle(self, person: str, open_keys: Collection[str], now: float) -> None:
        """Mark all that waits no more, and what told of it alone as decided."""
        unsettled = self._all("SELECT key FROM items WHERE person = ? AND is_open AND settled_at IS NULL", person)
        gone = [row["key"] for row in unsettled if row["key"] not in open_keys]
        for key in gone:
            self._do("UPDATE items SET settled_at = ? WHERE person = ? AND key = ?", now, person, key)
        for key in gone:
            for row in self._all("SELECT message FROM items WHERE person = ? AND key = ?", person, key):
                if row["message"] is not None and not self.items_of(row["message"]):
                    self._end_message(row["message"], now)

    def reopen(self, person: str, open_keys: Collection[str]) -> None:
        """Have those told anew that were taken for settled, and wait after all."""
        settled = self._all("SELECT key FROM items WHERE person = ? AND is_open AND settled_at IS NOT NULL", person)
        back = [row["key"] for row in settled if row["key"] in open_keys]
        for key in back:
            self._do("UPDATE items SET settled_at = NULL WHERE person = ? AND key = ?", person, key)
            of_it = "message = (SELECT message FROM items WHERE person = ? AND key = ?)"
            self._do(
                f"UPDATE deliveries SET state = 'due', decided_at = NULL, attempts = 0 WHERE {of_it}"  # noqa: S608 # a constant
                " AND state IN ('dropped', 'withdrawn')",
                person,
                key,
            )
            self._do(
                f"UPDATE deliveries SET state = 'sent', decided_at = NULL WHERE {of_it} AND state = 'withdraw'",  # noqa: S608 # a constant
                person,
                key,
            )

    def _end_message(self, message: str, now: float) -> None:
        """All that it told of is settled."""
        self._do(
            "UPDATE deliveries SET state = 'dropped', lease_until = 0 WHERE message = ? AND state = 'due'"
            " AND lease_until < ?",
            message,
            now,
        )
        self._do(
            "UPDATE deliveries SET state = 'withdraw', decided_at = ?, due_at = ?, attempts = 0"
            " WHERE message = ? AND state = 'sent'",
            now,
            now,
            message,
        )

    # -- messages ---------------------------------------------------------------------------------------------------

    def untold(self, person: str) -> list[Item]:
        """Return what no message tells yet, the oldest first."""
        return _items(
            self._all(
                "SELECT * FROM items WHERE person = ? AND message IS NULL AND settled_at IS NULL"
                " ORDER BY found_at, at, key",
                person,
            )
        )

    def told_last(self, person: str) -> float:
        """Return when the last message to a person was made; 0.0: none was."""
        rows = self._all("SELECT max(made_at) AS at FROM messages WHERE person = ?", person)
        return float(rows[0]["at"] or 0.0)

    def compose(self, person: str, items: Iterable[Item], outlet: str, now: float) -> str:
        """Make a message of these items for an outlet, and return its id, which is the same for the same items."""
        keys = [item.key for item in items]
        id_ = hashlib.sha256("\n".join([person, *keys]).encode(errors="replace")).hexdigest()[:20]
        self._do("INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?)", id_, person, now, now)
        self._db.executemany(
            "UPDATE items SET message = ? WHERE person = ? AND key = ?", [(id_, person, key) for key in keys]
        )
        self.hand_over(id_, person, outlet, now)
        return id_

    def hand_over(self, message: str, person: str, outlet: str, now: float) -> None:
        """Have a message sent by an outlet, unless it was or will be."""
        self._do(
            "INSERT OR IGNORE INTO deliveries (message, person, outlet, state, due_at) VALUES (?, ?, ?, 'due', ?)",
            message,
            person,
            outlet,
            now,
        )
        self._do("UPDATE messages SET escalated_at = ? WHERE id = ?", now, message)

    def person_of(self, message: str) -> str | None:
        """Return whose a message is; None: there is no such one."""
        return next((row["person"] for row in self._all("SELECT person FROM messages WHERE id = ?", message)), None)

    def items_of(self, message: str) -> list[Item]:
        """Return what a message tells that is not settled, the oldest first."""
        return _items(
            self._all("SELECT * FROM items WHERE message = ? AND settled_at IS NULL ORDER BY at, key", message)
        )

    def told_by(self, message: str) -> list[Item]:
        """Return all that a message told, settled or not, the oldest first."""
        return _items(self._all("SELECT * FROM items WHERE message = ? ORDER BY at, key", message))

    def unopened(self, person: str, before: float) -> dict[str, list[str]]:
        """Return messages of asks that still wait, were opened nowhere, and went to no outlet since `before`.

        The values are the outlets that they went to.
        """
        rows = self._all(
            "SELECT id, outlet FROM messages JOIN deliveries ON message = id WHERE messages.person = ?"
            " AND escalated_at <= ? AND EXISTS (SELECT 1 FROM items WHERE items.message = id AND is_open"
            " AND settled_at IS NULL) AND NOT EXISTS"
            " (SELECT 1 FROM deliveries AS d WHERE d.message = id AND d.opened_at IS NOT NULL)",
            person,
            before,
        )
        return _grouped(rows, "id")

    def refused(self, person: str) -> dict[str, list[str]]:
        """Return messages that are not settled and that no outlet has or may still take; the values are as above."""
        rows = self._all(
            "SELECT message, outlet FROM deliveries AS d WHERE person = ? AND state = 'failed' AND EXISTS"
            " (SELECT 1 FROM items WHERE items.message = d.message AND settled_at IS NULL) AND NOT EXISTS"
            " (SELECT 1 FROM deliveries AS o WHERE o.message = d.message AND o.state IN ('due', 'sent'))",
            person,
        )
        return _grouped(rows, "message")

    # -- deliveries -------------------------------------------------------------------------------------------------

    def claim(self, owner: str, now: float, lease: float, busy: Collection[tuple[str, str]]) -> Delivery | None:
        """Take the next delivery, if any, for `lease` seconds; of an outlet (person, name) that is not `busy`."""
        with self._without_waiting_for_the_disk(), self.together():
            for row in self._all(
                f"SELECT message, person, outlet, min(due_at) FROM deliveries WHERE state IN {_NOT_OVER}"  # noqa: S608 # a constant
                " AND due_at <= ? AND lease_until < ? GROUP BY person, outlet ORDER BY 4",  # of each outlet the first
                now,
                now,
            ):
                if (row["person"], row["outlet"]) in busy:
                    continue
                found = self._all(
                    "UPDATE deliveries SET owner = ?, lease_until = ?, attempts = attempts + 1"
                    " WHERE message = ? AND outlet = ? RETURNING *",
                    owner,
                    now + lease,
                    row["message"],
                    row["outlet"],
                )
                return _delivery(found[0])
        return None

    @contextmanager
    def _without_waiting_for_the_disk(self) -> Iterator[None]:
        """A power cut may take a claim back: no harm, as it then counts as never made."""
        self._do("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            self._do("PRAGMA synchronous = FULL")

    def release_others(self, owner: str) -> None:
        """End the leases of all others: whoever leads knows that they are gone."""
        self._do("UPDATE deliveries SET lease_until = 0 WHERE owner != ? AND lease_until > 0", owner)

    def bring_forward(self, beyond: float, now: float) -> None:
        """Have due now what is due after `beyond`, by a clock that was set back since."""
        due = f"UPDATE deliveries SET due_at = ?, lease_until = 0 WHERE due_at > ? AND state IN {_NOT_OVER}"  # noqa: S608 # a constant
        self._do(due, now, beyond)
        self._do("UPDATE messages SET escalated_at = ? WHERE escalated_at > ?", now, beyond)

    def accepted(self, delivery: Delivery, owner: str, now: float) -> None:
        """Note that an outlet has it."""
        self._finish(delivery, owner, "sent", "accepted_at = ?, reason = ''", now)
        self._outlet(delivery, "accepted_at = ?, disabled_at = NULL, failing_since = NULL, reason = ''", now)
        if not self.items_of(delivery.message):  # settled while it was on its way
            self._end_message(delivery.message, now)

    def withdrawn(self, delivery: Delivery, owner: str) -> None:
        """Note that it was taken back, or cannot be."""
        self._finish(delivery, owner, "withdrawn", "reason = reason")

    def put_back(self, delivery: Delivery, owner: str, due_at: float) -> None:
        """Leave it for later; this was no attempt."""
        self._finish(delivery, owner, delivery.state, "due_at = ?, attempts = attempts - 1", due_at)

    def failed(self, delivery: Delivery, owner: str, reason: str, now: float, *, again_at: float | None) -> None:
        """Note that an outlet did not take it. `again_at`: when it is tried again; None: it is not."""
        state = delivery.state if again_at is not None else "failed"
        self._finish(delivery, owner, state, "reason = ?, due_at = ?", reason, again_at or now)
        self._outlet(
            delivery, "failed_at = ?, failing_since = coalesce(failing_since, ?), reason = ?", now, now, reason
        )

    def _finish(self, delivery: Delivery, owner: str, state: str, what: str, *values: object) -> None:
        self._do(
            f"UPDATE deliveries SET state = ?, lease_until = 0, {what}"  # noqa: S608 # texts of ours
            " WHERE message = ? AND outlet = ? AND owner = ?",
            state,
            *values,
            delivery.message,
            delivery.outlet,
            owner,
        )

    def _outlet(self, of: Delivery, what: str, *values: object) -> None:
        self._do("INSERT OR IGNORE INTO outlets (person, outlet) VALUES (?, ?)", of.person, of.outlet)
        self._do(
            f"UPDATE outlets SET {what} WHERE person = ? AND outlet = ?",  # noqa: S608 # texts of ours
            *values,
            of.person,
            of.outlet,
        )

    def disable(self, delivery: Delivery, reason: str, now: float) -> None:
        """Send nothing by this outlet any more, and give up what waits for it."""
        since = "failing_since = coalesce(failing_since, ?)"
        self._outlet(delivery, f"disabled_at = ?, {since}, reason = ?", now, now, reason)
        self._do(
            "UPDATE deliveries SET state = 'failed', reason = ?, lease_until = 0"
            " WHERE person = ? AND outlet = ? AND state = 'due'",
            reason,
            delivery.person,
            delivery.outlet,
        )

    def forget_outlet(self, person: str, outlet: str) -> None:
        """Forget how an outlet did: it has another address now, or is no more."""
        self._do("DELETE FROM outlets WHERE person = ? AND outlet = ?", person, outlet)

    def keep_outlets(self, listed: Collection[tuple[str, str]]) -> None:
        """Forget how all others did; `listed`: persons and names."""
        with self.together():
            for each in self.outlets():
                if (each.person, each.outlet) not in listed:
                    self.forget_outlet(each.person, each.outlet)

    def saw(self, message: str, outlet: str | None, what: Seen, now: float) -> bool:
        """Note that a message was seen, by way of an outlet or a page (None); return whether there is such a one."""
        column = {"shown": "shown_at", "opened": "opened_at"}[what]
        return bool(
            self._do(
                f"UPDATE deliveries SET {column} = coalesce({column}, ?)"  # noqa: S608 # of two
                " WHERE message = ? AND outlet = coalesce(?, outlet)",
                now,
                message,
                outlet,
            )
        )

    # -- looking, and from time to time -----------------------------------------------------------------------------

    def disabled(self, person: str) -> set[str]:
        """Return the outlets of a person that take nothing any more."""
        rows = self._all("SELECT outlet FROM outlets WHERE person = ? AND disabled_at IS NOT NULL", person)
        return {row["outlet"] for row in rows}

    def outlets(self) -> list[OutletState]:
        """Return how each outlet does that anything was sent by."""
        return [OutletState(**dict(row)) for row in self._all("SELECT * FROM outlets ORDER BY person, outlet")]

    def deliveries(self, limit: int) -> list[Delivery]:
        """Return the last deliveries, the newest first."""
        rows = self._all("SELECT * FROM deliveries ORDER BY rowid DESC LIMIT ?", limit)
        return [_delivery(row) for row in rows]

    def prune(self, people: Mapping[str, object], now: float) -> None:
        """Forget what is settled and old, or too much, and all of who is not told any more."""
        with self.together():
            for table in ("items", "messages", "deliveries", "outlets"):
                for row in self._all(f"SELECT DISTINCT person FROM {table}"):  # noqa: S608 # of four
                    if row["person"] not in people:
                        self._do(f"DELETE FROM {table} WHERE person = ?", row["person"])  # noqa: S608 # of four
            for id_ in self._over(now):
                for table, column in (("items", "message"), ("deliveries", "message"), ("messages", "id")):
                    self._do(f"DELETE FROM {table} WHERE {column} = ?", id_)  # noqa: S608 # of three
            self._do("DELETE FROM items WHERE message IS NULL AND settled_at < ?", now - KEEP_SECONDS)
            self._do("DELETE FROM turns WHERE started_at < ?", now - KEEP_SECONDS)
            self._do(
                "DELETE FROM turns WHERE rowid NOT IN (SELECT rowid FROM turns ORDER BY started_at DESC LIMIT ?)",
                MAX_TURNS,
            )

    def _over(self, now: float) -> Iterator[str]:
        """Return the messages that may go: what waits stays, as it would be told once more else."""
        rows = self._all(
            "SELECT id, made_at FROM messages WHERE NOT EXISTS"
            " (SELECT 1 FROM items WHERE message = id AND is_open AND settled_at IS NULL) AND NOT EXISTS"
            " (SELECT 1 FROM deliveries WHERE message = id AND state IN ('due', 'withdraw')) ORDER BY made_at DESC"
        )
        return (row["id"] for n, row in enumerate(rows) if n >= MAX_MESSAGES or row["made_at"] < now - KEEP_SECONDS)


def _grouped(rows: Iterable[sqlite3.Row], key: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row["outlet"])
    return found


def _items(rows: Iterable[sqlite3.Row]) -> list[Item]:
    return [
        Item(**{name: row[name] for name in ("key", "event", "instance", "at", "title", "about")}) for row in rows
    ]


def _delivery(row: sqlite3.Row) -> Delivery:
    return Delivery(**{name: row[name] for name in Delivery.__slots__})
