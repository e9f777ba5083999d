"""The rows of clients in the database: from a client's first consent on, until it is of no use any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opencode_gateway.errors import CommandRefused
from opencode_gateway.oauth.registrations import COLUMNS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from opencode_gateway.oauth.credentials import ClientCredentials

MAX_CLIENTS: Final = 200
"""That registered, and that somebody granted something. Of those without a session the oldest makes room."""
UNUSED_SECONDS: Final = 3600
"""In which a client that registered must be granted something; it registers anew afterwards."""
_IN_USE: Final = (
    "document = 0 AND (EXISTS (SELECT 1 FROM sessions WHERE client_id = clients.id)"
    " OR EXISTS (SELECT 1 FROM codes WHERE client_id = clients.id AND session_id IS NULL))"
)


def keep_let_in(db: sqlite3.Connection, client_id: str, let_in_as: str) -> None:
    """Add what a client is let in as to what it was let in as before."""
    row = db.execute("SELECT let_in_as FROM clients WHERE id = ?", (client_id,)).fetchone()
    names = dict.fromkeys([*(row["let_in_as"].split() if row else ()), *let_in_as.split()])
    db.execute("UPDATE clients SET let_in_as = ? WHERE id = ?", (" ".join(names), client_id))


def is_full(db: sqlite3.Connection) -> bool:
    """Tell whether no further client can be registered: all places are taken by clients that are in use."""
    return _count(db, _IN_USE) >= MAX_CLIENTS


def make_room(db: sqlite3.Connection) -> None:
    """Forget the registered clients that were granted something longest ago, of those without a session.

    Raises:
        Refused: all have sessions.
    """
    over = _count(db, "document = 0") + 1 - MAX_CLIENTS
    if over <= 0:
        return
    if is_full(db):
        raise CommandRefused(
            f"{MAX_CLIENTS} clients have sessions here: remove some with `sudo opencode-gateway clients revoke ID`"
        )
    db.execute(
        f"DELETE FROM clients WHERE id IN (SELECT id FROM clients WHERE document = 0 AND NOT ({_IN_USE})"  # noqa: S608 # of this file
        " ORDER BY granted_at LIMIT ?)",
        (over,),
    )


def prune(db: sqlite3.Connection, now: float) -> None:
    """Forget clients that nobody needs any more."""
    # Those that an earlier version has stored at registration.
    db.execute("DELETE FROM clients WHERE granted_at IS NULL AND created_at < ?", (now - UNUSED_SECONDS,))
    # A document's client is only a name for its sessions, and for what its people may renew.
    db.execute(
        "DELETE FROM clients WHERE document = 1"
        " AND NOT EXISTS (SELECT 1 FROM sessions WHERE client_id = clients.id)"
        " AND NOT EXISTS (SELECT 1 FROM codes WHERE client_id = clients.id)"
        " AND NOT EXISTS (SELECT 1 FROM renewals WHERE client_id = clients.id)"
    )


def row_of(
    name: str, uris: Iterable[str], credentials: ClientCredentials, *, document: bool, let_in_as: str = ""
) -> dict[str, Any]:
    """Return what a client's row has of what the client says: see `registrations.COLUMNS`."""
    row = {"name": name, "document": int(document), "redirect_uris": "\n".join(uris), "let_in_as": let_in_as}
    return row | credentials.model_dump()


def insert(db: sqlite3.Connection, client_id: str, row: Mapping[str, Any], now: float) -> None:
    """Keep a client from now on, or what it says of itself today."""
    names = ", ".join(COLUMNS)
    places = ", ".join(f":{column}" for column in COLUMNS)
    # As what it was let in is added to: see `keep_let_in`.
    changed = ", ".join(f"{column} = excluded.{column}" for column in COLUMNS if column != "let_in_as")
    db.execute(
        f"INSERT INTO clients (id, created_at, {names}) VALUES (:id, :now, {places})"  # noqa: S608 # of `registrations`
        f" ON CONFLICT (id) DO UPDATE SET {changed}",
        {"id": client_id, "now": now, **row},
    )


def _count(db: sqlite3.Connection, where: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM clients WHERE {where}").fetchone()[0])  # noqa: S608 # of this file
