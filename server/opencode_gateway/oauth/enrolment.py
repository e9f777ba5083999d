"""The short window in which the owner admits new clients, and the list of those that were admitted.

People of one chat service share its callback address, so an address does not say whose client asks. The window does:
it is the owner who knows when a client of theirs is about to ask.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opencode_gateway.errors import CommandRefused
from opencode_gateway.oauth.known_clients import known_clients
from opencode_gateway.oauth.registrations import is_whole, shown_id

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from opencode_gateway.oauth.known_clients import Known
    from opencode_gateway.store import Store

MAX_MINUTES: Final = 60
_REVOKED_SECONDS: Final = 24 * 3600


@dataclass(frozen=True)
class ListedClient:
    """A client as lists show it. Times are seconds since the epoch."""

    id: str
    name: str
    document: bool
    redirect_uris: tuple[str, ...]
    created_at: float
    granted_at: float | None
    sessions: int
    let_in_as: str
    """The known client that it was taken for in a window that was opened for that one; empty for all others."""


def how_to_open(owners: Sequence[Known] = ()) -> str:
    """Return who opens the window with which command, as a clause.

    Args:
        owners: the known clients whose addresses the one that asks has. Where that is one, and not on by default, the
            window is opened for it, so that nobody is refused a second time. Whether it is on is not told to
            strangers, and no command has a host in it that a stranger chose.
    """
    named = owners[0] if len(owners) == 1 and not owners[0].entry.default and not owners[0].host else None
    return f"the owner of this relay runs `sudo opencode-gateway clients allow{f' --for {named}' if named else ''}`"


def open_window(store: Store, *, minutes: int, now: float, known: Iterable[Known] = ()) -> float:
    """Admit new clients for so many minutes from now; return until when.

    Args:
        store: of the service.
        minutes: 1 to 60.
        now: seconds since the epoch.
        known: are admitted in this window even if they are not switched on.

    Raises:
        Refused: `minutes` is not in 1..60.
    """
    if not 1 <= minutes <= MAX_MINUTES:
        raise CommandRefused(f"--minutes takes 1 to {MAX_MINUTES}: a window that stays open is none")
    until = now + minutes * 60
    with store.transaction() as db:
        db.execute(
            "INSERT INTO enrolment (one, opened_at, open_until, opened_for) VALUES (1, ?, ?, ?) ON CONFLICT (one)"
            " DO UPDATE SET opened_at = excluded.opened_at, open_until = excluded.open_until,"
            " opened_for = excluded.opened_for",
            (now, until, " ".join(map(str, known))),
        )
    return until


def close_window(store: Store, *, now: float) -> None:
    """Admit no new client from now on, nor one that began to connect and that nobody has consented to yet.

    Those that somebody has consented to stay. A window that closes itself ends nothing that began in it.
    """
    with store.transaction() as db:
        db.execute(
            "INSERT INTO enrolment (one, opened_at, open_until, closed_at) VALUES (1, 0, 0, ?) ON CONFLICT (one)"
            " DO UPDATE SET opened_at = 0, open_until = 0, opened_for = '', closed_at = excluded.closed_at",
            (now,),
        )


def was_closed_since(db: sqlite3.Connection, began_at: float) -> bool:
    """Tell whether the owner has closed the window since then, and thereby ended what began to connect then.

    `began_at` may be the whole second that it lies in: a window opened anew within it lets in what began then.
    """
    found = db.execute(
        "SELECT 1 FROM enrolment WHERE closed_at > ? AND NOT opened_at BETWEEN closed_at AND ? + 1",
        (began_at, began_at),
    )
    return found.fetchone() is not None


def opened_at(db: sqlite3.Connection, now: float) -> float | None:
    """Return when the window was opened that is open now; None if none is."""
    row = db.execute("SELECT opened_at FROM enrolment WHERE ? BETWEEN opened_at AND open_until", (now,)).fetchone()
    return float(row["opened_at"]) if row else None


def opened_for(db: sqlite3.Connection, now: float) -> list[Known]:
    """Return the clients that the window which is open now was opened for by name."""
    row = db.execute("SELECT opened_for FROM enrolment WHERE ? BETWEEN opened_at AND open_until", (now,)).fetchone()
    return known_clients(row["opened_for"]) if row else []


def list_clients(store: Store) -> list[ListedClient]:
    """Return all clients, oldest first."""
    with store.transaction(write=False) as db:
        rows = db.execute(
            "SELECT clients.*, (SELECT count(*) FROM sessions WHERE client_id = clients.id) AS sessions"
            " FROM clients ORDER BY created_at, id"
        ).fetchall()
    return [
        ListedClient(
            id=row["id"],
            name=row["name"],
            document=bool(row["document"]),
            redirect_uris=tuple(row["redirect_uris"].split("\n")),
            created_at=row["created_at"],
            granted_at=row["granted_at"],
            sessions=row["sessions"],
            let_in_as=row["let_in_as"],
        )
        for row in rows
    ]


def revoke_client(store: Store, client_id: str) -> int:
    """Forget a client, and end its sessions at once; return how many those were.

    Args:
        store: of the service.
        client_id: its id, or what `shown_id` makes of it.

    Raises:
        Refused: there is no such client.
    """
    now = time.time()
    with store.transaction() as db:
        ids = [row["id"] for row in db.execute("SELECT id FROM clients")]
        found = next((each for each in ids if client_id in {each, shown_id(each)}), None)
        # One that nobody has granted anything to is known by its own id alone, which is in the audit log.
        carries_itself = is_whole(client_id) and not was_revoked(db, client_id)
        if found is None and not carries_itself:
            raise CommandRefused(f"there is no client {client_id[:200]!r}: see `sudo opencode-gateway clients list`")
        whole = found or client_id
        sessions = int(db.execute("SELECT count(*) FROM sessions WHERE client_id = ?", (whole,)).fetchone()[0])
        db.execute("DELETE FROM clients WHERE id = ?", (whole,))
        # Its registration would be good for an hour.
        db.execute("DELETE FROM revoked_clients WHERE at < ?", (now - _REVOKED_SECONDS,))
        db.execute("INSERT OR REPLACE INTO revoked_clients (id, at) VALUES (?, ?)", (whole, now))
    return sessions


def was_revoked(db: sqlite3.Connection, client_id: str, *, since: float = 0.0) -> bool:
    """Tell whether a client was revoked, which is remembered for as long as its registration could be good."""
    found = db.execute("SELECT 1 FROM revoked_clients WHERE id = ? AND at >= ?", (client_id, since))
    return found.fetchone() is not None
