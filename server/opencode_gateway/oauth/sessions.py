"""Sessions as the owner sees them: what one consent gave, for as long as a token of it is good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opencode_gateway.store import Store


@dataclass(frozen=True)
class Session:
    """A session as lists show it. Times are seconds since the epoch."""

    id: str
    login: str
    client_id: str
    client_name: str
    capabilities: tuple[str, ...]
    created_at: float
    refreshed_at: float


def list_sessions(store: Store) -> list[Session]:
    """Return all sessions, oldest first."""
    with store.transaction(write=False) as db:
        rows = db.execute(
            "SELECT sessions.*, clients.name FROM sessions JOIN clients ON clients.id = client_id"
            " ORDER BY sessions.created_at, sessions.id"
        ).fetchall()
    return [
        Session(
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
            return db.execute("DELETE FROM sessions WHERE id = ?", (session_id,)).rowcount
        db.execute("DELETE FROM renewals WHERE login = coalesce(?, login)", (login,))
        db.execute("DELETE FROM codes WHERE session_id IS NULL AND login = coalesce(?, login)", (login,))
        return db.execute("DELETE FROM sessions WHERE login = coalesce(?, login)", (login,)).rowcount
