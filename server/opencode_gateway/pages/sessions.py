"""Sessions on our own pages: begun by a login, found by a cookie, and of no use to anybody who reads the database.

Who a session is of is asked of the directory at each request: what somebody may do, and whether they may come in at
all, is as it stands there. One whose password or one-time codes were changed since has ended. That of an identity
provider lasts only until the provider would have to be asked again, and nothing is kept to ask it with: the browser
goes there once more, mostly without a word to the person.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opencode_gateway.audit import PAGES, AuditEvent
from opencode_gateway.pages.browser_cookies import SESSION_SECONDS
from opencode_gateway.store import hashed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from opencode_gateway.pages.browser_cookies import BrowserCookies
    from opencode_gateway.people.directory import Directory, Person
    from opencode_gateway.sign_in.step import Kind, Proof
    from opencode_gateway.store import Store

MAX_SESSIONS: Final = 20
"""Of one login; the oldest makes room."""


@dataclass(frozen=True, slots=True)
class PageSession:
    """One that is good, and who it is of as they are now."""

    id: str
    person: Person


class PageSessions:
    """The sessions of one gateway.

    Args:
        directory: who may come in now.
        kind: how people log in now; what was begun another way had other checks.
        browsers: knows credentials by their mark.
        on_event: hears of sessions that begin and end, in the store's thread.
        clock: seconds since the epoch.

    What changes something raises `StoreError` as `Store.write` does.
    """

    def __init__(
        self,
        store: Store,
        directory: Directory,
        kind: Kind,
        browsers: BrowserCookies,
        *,
        on_event: Callable[[AuditEvent], None] = lambda event: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._directory = directory
        self._kind = kind
        self._browsers = browsers
        self._on_event = on_event
        self._clock = clock

    async def begin(self, secret: str, person: Person, proof: Proof, *, before: str | None, address: str) -> None:
        """Begin a session of somebody who has just logged in.

        Args:
            secret: random, and new.
            person: who has logged in.
            proof: how, and until when that counts.
            before: the secret that the browser had until now, whose session ends.
            address: where they are, for the audit log.
        """
        now = self._clock()
        ends_at = min(now + SESSION_SECONDS, proof.recheck_at or float("inf"))
        id_ = secrets.token_hex(8)
        row = (id_, hashed(secret), person.login, proof.kind, self._browsers.credentials(person), now, ends_at)

        def begin(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM page_sessions WHERE ends_at <= ?", (now,))
            if before is not None:
                self._end(db, _id_of(db, before), "replaced")
            db.execute(
                "INSERT INTO page_sessions (id, hash, login, kind, credentials, created_at, ends_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            db.execute(
                "DELETE FROM page_sessions WHERE rowid IN (SELECT rowid FROM page_sessions WHERE login = ?"
                " ORDER BY created_at DESC, rowid DESC LIMIT -1 OFFSET ?)",
                (person.login, MAX_SESSIONS),
            )

        await self._store.write(begin)
        self._on_event(
            AuditEvent(
                event="page-session-started",
                outcome="ok",
                login=person.login,
                kind=proof.kind,
                client_name=PAGES,
                address=address,
                details={"page_session": id_},
            )
        )

    async def find(self, secret: str) -> PageSession | None:
        """Return the session of this secret, if it is good.

        Raises:
            GatewayError: that cannot be established now.
        """
        with self._store.transaction(write=False) as db:
            row = db.execute("SELECT * FROM page_sessions WHERE hash = ?", (hashed(secret),)).fetchone()
        if row is None or self._clock() >= row["ends_at"]:
            return None
        person = self._directory.find(row["login"])
        if person is None:
            await self.end(row["id"], "person-refused")
            return None
        is_as_then = hmac.compare_digest(row["credentials"], self._browsers.credentials(person))
        if row["kind"] != self._kind or not is_as_then:
            await self.end(row["id"], "credentials-changed")
            return None
        return PageSession(row["id"], person)

    def begun_at(self, session_id: str) -> float:
        """Return when a session's login was; long ago for one that is over."""
        with self._store.transaction(write=False) as db:
            row = db.execute("SELECT created_at FROM page_sessions WHERE id = ?", (session_id,)).fetchone()
        return 0.0 if row is None else float(row["created_at"])

    async def end(self, session_id: str, why: str) -> None:
        """End a session before its time, with its line in the audit log."""
        await self._store.write(lambda db: self._end(db, session_id, why))

    def _end(self, db: sqlite3.Connection, session_id: str | None, why: str) -> None:
        for row in db.execute(
            "DELETE FROM page_sessions WHERE id = ? RETURNING login, kind", (session_id,)
        ).fetchall():
            self._on_event(
                AuditEvent(
                    event="page-session-ended",
                    outcome=why,
                    client_name=PAGES,
                    details={"page_session": session_id},
                    **dict(row),
                )
            )


def _id_of(db: sqlite3.Connection, secret: str) -> str | None:
    row = db.execute("SELECT id FROM page_sessions WHERE hash = ?", (hashed(secret),)).fetchone()
    return None if row is None else row["id"]
