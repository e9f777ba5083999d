"""Sessions as the owner sees them: what one consent gave, while a token of it is good, and those on our own pages."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opencode_gateway.audit import PAGES

if TYPE_CHECKING:
    from opencode_gateway.store import Store

_TABLES: Final = ("sessions", "page_sessions")


@dataclass(frozen=True)
class LoginSession:
    """A session as lists show it. Times are seconds since the epoch."""

    id: str
    login: str
    client_id: str
    client_name: str
    capabilities: tuple[str, ...]
    """Of the pages none are kept: there people may what they may at that moment."""
    created_at: float
    refreshed_at: float


def list_sessions(store: Store) -> list[LoginSession]:
    """Return all sessions, oldest first."""
    with store.transaction(write=False) as db:
        rows = db.execute(
            "SELECT sessions.*, clients.name FROM sessions JOIN clients ON clients.id = client_id"
        ).fetchall()
        on_pages = db.execute("SELECT * FROM page_sessions WHERE ends_at > ?", (time.time(),)).fetchall()
    found = [
        LoginSession(
            id=row["id"],
            login=row["login"],
            client_id=row["client_id"],
            client_name=row["name"],
            capabilities=tuple(row["capabilities"].split()),
            created_at=row["created_at"],
            refreshed_at=row["refreshed_at"],
        )
        for row in rows
    ]
    found += [
        LoginSession(
            id=row["id"],
            login=row["login"],
            client_id=PAGES,
            client_name=PAGES,
            capabilities=(),
            created_at=row["created_at"],
            refreshed_at=row["created_at"],
        )
        for row in on_pages
    ]
    return sorted(found, key=lambda session: (session.created_at, session.id))


def revoke_sessions(store: Store, *, session_id: str | None = None, login: str | None = None) -> int:
    """End sessions at once, without either argument all; return how many.

    With a person's sessions go the codes that they were given and no client has used yet. Whose session was ended
    needs a window to connect that client again: see `renewals`.
    """
    with store.transaction() as db:
        if session_id is not None:
            db.execute(
                "DELETE FROM renewals WHERE (client_id, login) IN"
                " (SELECT client_id, login FROM sessions WHERE id = ?)",
                (session_id,),
            )
            return sum(
                db.execute(f"DELETE FROM {table} WHERE id = ?", (session_id,)).rowcount  # noqa: S608 - names of ours
                for table in _TABLES
            )
        db.execute("DELETE FROM renewals WHERE login = coalesce(?, login)", (login,))
        db.execute("DELETE FROM codes WHERE session_id IS NULL AND login = coalesce(?, login)", (login,))
        return sum(
            db.execute(f"DELETE FROM {table} WHERE login = coalesce(?, login)", (login,)).rowcount  # noqa: S608 - as above
            for table in _TABLES
        )
