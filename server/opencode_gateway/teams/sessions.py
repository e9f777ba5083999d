"""Logins at a provider as rows of the table that `opencode-gateway sessions` and `clients` show and delete from.

A token is good while the row of its session is there: deleting it, or its client's, ends the tokens at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastmcp.server.auth import AccessToken, TokenVerifier

from opencode_gateway.oauth.grants import MAX_SESSIONS, REFRESH_SECONDS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from opencode_gateway.store import Store
    from opencode_gateway.teams.people import People

_OVER: Final = REFRESH_SECONDS + 24 * 3600
"""After which no token of a session can be left."""


@dataclass(frozen=True)
class Session:
    """A login that counts."""

    id: str
    login: str
    client_id: str
    client_name: str


def begin(
    db: sqlite3.Connection,
    session_id: str,
    *,
    login: str,
    client_id: str,
    capabilities: Iterable[str],
    resource: str,
    now: float,
) -> None:
    """Note a login. Its client must be in the database; the oldest of too many of one person's makes room."""
    db.execute("DELETE FROM sessions WHERE refreshed_at < ?", (now - _OVER,))
    db.execute(
        "INSERT INTO sessions (id, login, client_id, capabilities, resource, created_at, refreshed_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (session_id, login, client_id, " ".join(capabilities), resource, now, now),
    )
    db.execute(
        "DELETE FROM sessions WHERE login = ?1 AND id NOT IN (SELECT id FROM sessions WHERE login = ?1"
        " ORDER BY refreshed_at DESC, rowid DESC LIMIT ?2)",
        (login, MAX_SESSIONS),
    )


def find(store: Store, session_id: str) -> Session | None:
    """Return a session that was not ended."""
    with store.transaction(write=False) as db:
        row = db.execute(
            "SELECT sessions.id, login, client_id, clients.name FROM sessions JOIN clients ON clients.id = client_id"
            " WHERE sessions.id = ?",
            (session_id,),
        ).fetchone()
    return None if row is None else Session(row["id"], row["login"], row["client_id"], row["name"])


def renew(store: Store, session_id: str, now: float) -> None:
    """Note that a session was used to get new tokens."""
    with store.transaction() as db:
        db.execute("UPDATE sessions SET refreshed_at = ? WHERE id = ?", (now, session_id))


def end(store: Store, session_id: str) -> None:
    """End a session, with all its tokens."""
    with store.transaction() as db:
        db.execute("DELETE FROM sessions WHERE id = ?", (session_id,))


class BySession(TokenVerifier):
    """Takes `SESSION PERSON`, as `_get_verification_token` has it, for a token of the provider's."""

    def __init__(self, store: Store, people: People) -> None:
        super().__init__()
        self._store = store
        self._people = people

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return whose it is; None if the session was ended, or is of somebody who is not in the list."""
        session_id, _, person = token.partition(" ")
        session = find(self._store, session_id)
        if session is None or session.login != person or not self._people.capabilities(person):
            return None
        return AccessToken(
            token=token,
            client_id=session.client_id,
            scopes=[],
            subject=person,
            claims={"client_name": session.client_name, "session": session.id},
        )
