"""Codes, access tokens and refresh tokens: made, found by their hash, rotated and revoked.

A session is what one consent gave: `codes` -> `sessions` -> `tokens`. Deleting a session ends all tokens that came
of it.

A refresh token that was exchanged is good again in some cases, which `rounds` decides; else whoever shows it has
stolen it, or was stolen from, and the session ends. One that was replaced is kept until it would have expired, and
none is forgotten to make room: a thief could make that happen, and the owner's next use would then say nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from opencode_gateway.audit import AuditEvent
from opencode_gateway.errors import StoreError
from opencode_gateway.oauth import rounds
from opencode_gateway.store import hashed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from opencode_gateway.oauth.requests import Pending
    from opencode_gateway.sign_in.step import Proof
    from opencode_gateway.store import Store

log = logging.getLogger(__name__)
CODE_SECONDS: Final = 60
ACCESS_SECONDS: Final = 24 * 3600
REFRESH_SECONDS: Final = 90 * 24 * 3600
USED_CODE_SECONDS: Final = 24 * 3600
"""For which a used code is remembered, to end what it gave if it is shown again."""
MAX_CODES: Final = 20
"""Not yet used, of one login."""
MAX_SESSIONS: Final = 100
"""Of one login; the one that was refreshed longest ago makes room."""
MAX_ACCESS: Final = 20
"""Of one session; the oldest makes room."""
MAX_REPLACED: Final = 5000
"""Of one session, which ends at more. A client that refreshes each day leaves 90."""
_ACCESS: Final = "oga_"
_REFRESH: Final = "ogr_"
_BYTES: Final = 32


@dataclass(frozen=True)
class Code:
    """An authorization code that can be used."""

    client_id: str
    login: str
    kind: str
    """How the person logged in."""
    capabilities: list[str]
    resource: str
    challenge: str
    redirect_uri: str
    redirect_uri_explicit: bool
    expires_at: float


@dataclass(frozen=True)
class Token:
    """An access or refresh token that is good."""

    session_id: str
    client_id: str
    client_name: str
    login: str
    kind: str
    """How the person logged in."""
    recheck_at: float | None
    """See `sign_in.step.Proof`."""
    capabilities: list[str]
    resource: str
    expires_at: float


@dataclass(frozen=True)
class Pair:
    """New tokens. They are kept nowhere in this form."""

    access: str
    refresh: str
    ends_at: float | None = None
    """When the session ends in any case: its login cannot be renewed."""


class Grants:
    """The codes and tokens of one gateway.

    Args:
        key: the service's own; see `requests.signing_key`.
        clock: seconds since the epoch.
        on_event: hears of sessions that end before their time, in the store's thread.

    What changes something raises `StoreError` as `Store.write` does.
    """

    def __init__(
        self,
        store: Store,
        *,
        key: bytes,
        clock: Callable[[], float] = time.time,
        on_event: Callable[[AuditEvent], None] = lambda event: None,
    ) -> None:
        self._on_event = on_event
        self._store = store
        self._key = key
        self._clock = clock
        self._confirming: dict[bytes, asyncio.Task[None]] = {}
        """By its hash: refresh tokens whose answer arrived, which is being written down."""

    def issue_code(
        self, db: sqlite3.Connection, pending: Pending, login: str, capabilities: Iterable[str], proof: Proof
    ) -> str:
        """Return a code for what a person has just granted. Its client must be in the database."""
        now = self._clock()
        _prune(db, now)
        code = "ogc_" + secrets.token_urlsafe(_BYTES)
        db.execute(
            "INSERT INTO codes (hash, client_id, login, capabilities, resource, challenge, redirect_uri,"
            " redirect_uri_explicit, expires_at, kind, renewal, recheck_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                hashed(code),
                pending.client_id,
                login,
                " ".join(capabilities),
                pending.resource,
                pending.challenge,
                pending.redirect_uri,
                int(pending.redirect_uri_explicit),
                now + CODE_SECONDS,
                proof.kind,
                proof.renewal,
                proof.recheck_at,
            ),
        )
        db.execute(
            "DELETE FROM codes WHERE login = ?1 AND session_id IS NULL AND hash NOT IN (SELECT hash FROM codes"
            " WHERE login = ?1 AND session_id IS NULL ORDER BY expires_at DESC, rowid DESC LIMIT ?2)",
            (login, MAX_CODES),
        )
        return code

    async def code(self, code: str, client_id: str) -> Code | None:
        """Return a code that this client can use. One that was used ends the session that it gave."""
        with self._store.transaction(write=False) as db:
            row = _code(db, code, client_id)
        if row is not None and row["session_id"] is not None:
            await self._store.write(lambda db: self._end(db, row["session_id"], "code-replayed"))
            return None
        if row is None or self._clock() >= row["expires_at"]:
            return None
        return Code(
            client_id=row["client_id"],
            login=row["login"],
            kind=row["kind"],
            capabilities=row["capabilities"].split(),
            resource=row["resource"],
            challenge=row["challenge"],
            redirect_uri=row["redirect_uri"],
            redirect_uri_explicit=bool(row["redirect_uri_explicit"]),
            expires_at=row["expires_at"],
        )

    async def exchange(self, code: str, client_id: str) -> Pair | None:
        """Begin a session with a code. None if somebody else was faster, and the session is then ended."""
        return await self._store.write(lambda db: self._exchange(db, code, client_id))

    def _exchange(self, db: sqlite3.Connection, code: str, client_id: str) -> Pair | None:
        now = self._clock()
        row = _code(db, code, client_id)
        if row is not None and row["session_id"] is not None:
            self._end(db, row["session_id"], "code-replayed")
            return None
        if row is None or now >= row["expires_at"]:
            return None
        session_id = secrets.token_hex(8)
        db.execute(
            "INSERT INTO sessions (id, login, client_id, capabilities, resource, created_at, refreshed_at, kind,"
            " renewal, recheck_at) SELECT ?, login, client_id, capabilities, resource, ?, ?, kind, renewal,"
            " recheck_at FROM codes WHERE hash = ?",
            (session_id, now, now, row["hash"]),
        )
        db.execute(
            "DELETE FROM sessions WHERE login = ?1 AND id NOT IN (SELECT id FROM sessions WHERE login = ?1"
            " ORDER BY refreshed_at DESC, rowid DESC LIMIT ?2)",
            (row["login"], MAX_SESSIONS),
        )
        db.execute("UPDATE codes SET session_id = ?, renewal = NULL WHERE hash = ?", (session_id, row["hash"]))
        pair = Pair(access=_ACCESS + secrets.token_urlsafe(_BYTES), refresh=_REFRESH + secrets.token_urlsafe(_BYTES))
        _insert(db, pair.access, "access", session_id, row["capabilities"], now=now)
        _insert(db, pair.refresh, "refresh", session_id, row["capabilities"], now=now)
        return pair if row["renewal"] is not None else replace(pair, ends_at=row["recheck_at"])

    async def refresh_token(self, token: str, client_id: str) -> Token | None:
        """Return a refresh token that this client can use. One that was replayed ends its session."""
        with self._store.transaction(write=False) as db:
            row = self._found(db, token, client_id)
        if row is not None and self._is_replayed(row):
            await self._store.write(lambda db: self._end(db, row["session_id"], "refresh-token-replayed"))
            return None
        return None if row is None else _token(row)

    async def rotate(self, token: str, client_id: str, capabilities: Iterable[str]) -> Pair | None:
        """Replace a refresh token; its access token gets `capabilities`, which the refresh token must have.

        None if it is not good, or if so many were replaced that the session ends.
        """
        held = " ".join(capabilities)
        return await self._store.write(lambda db: self._rotate(db, token, client_id, held))

    def _rotate(self, db: sqlite3.Connection, token: str, client_id: str, capabilities: str) -> Pair | None:
        now = self._clock()
        while True:
            row = self._found(db, token, client_id)
            if row is None:
                return None
            session_id = row["session_id"]
            if self._is_replayed(row):
                self._end(db, session_id, "refresh-token-replayed")
                return None
            round_began = row["replaced_at"]
            if round_began is None or self._is_over(round_began):
                round_began = now
                rounds.begin(db, row["hash"], row["parent"], now)
            # One for the round, whatever capabilities are asked for: another one would be a branch of its own.
            refresh = _REFRESH + rounds.successor(self._key, token, f"refresh {round_began!r}")
            following = _find(db, refresh, "refresh")
            if following is None or following["replaced_at"] is None:
                break
            # A window was so fast that it has refreshed again, which all others of the round then do as well.
            token = refresh
        access = _ACCESS + rounds.successor(self._key, token, f"access {round_began!r} {capabilities}")
        pair = Pair(access=access, refresh=refresh)
        if following is not None and _find(db, access, "access") is not None:
            return pair
        db.execute("UPDATE sessions SET refreshed_at = ? WHERE id = ?", (now, session_id))
        _prune(db, now)
        parent = row["hash"]
        if following is None:
            _insert(db, refresh, "refresh", session_id, row["capabilities"], now=now, parent=parent)
        _insert(db, access, "access", session_id, capabilities, now=now, parent=parent)
        replaced = db.execute(
            "SELECT count(*) FROM tokens WHERE session_id = ? AND replaced_at IS NOT NULL", (session_id,)
        ).fetchone()[0]
        if replaced > MAX_REPLACED:
            self._end(db, session_id, "too-many-refreshes")
            return None
        return pair

    def access_token(self, token: str) -> Token | None:
        """Return an access token that is good; it is used by that. It waits for nothing."""
        with self._store.transaction(write=False) as db:
            row = _find(db, token, "access")
            if row is None or self._clock() >= row["expires_at"]:
                return None
            parent: bytes | None = row["parent"]
            if parent is not None and parent not in self._confirming and not rounds.is_confirmed(db, parent):
                self._confirming[parent] = asyncio.get_running_loop().create_task(self._confirm(parent))
        return _token(row)

    async def _confirm(self, parent: bytes) -> None:
        """Write down that the answer to a refresh token arrived. If it cannot be, the next call tries again."""
        try:
            await self._store.write(lambda db: rounds.confirm(db, parent, self._clock()))
        except StoreError as error:
            log.warning("the use of an access token is not written down yet: %s", error)
        finally:
            del self._confirming[parent]

    async def revoke(self, token: str, client_id: str) -> None:
        """End the session of an access or refresh token of this client's; others' are passed over."""
        with self._store.transaction(write=False) as db:
            row = db.execute(
                "SELECT session_id FROM tokens JOIN sessions ON sessions.id = session_id"
                " WHERE hash = ? AND client_id = ?",
                (hashed(token), client_id),
            ).fetchone()
        if row is not None:
            await self._store.write(lambda db: self._end(db, row["session_id"], "revoked"))

    async def end(self, session_id: str, why: str) -> None:
        """End a session before its time, with its line in the audit log."""
        await self._store.write(lambda db: self._end(db, session_id, why))

    def _found(self, db: sqlite3.Connection, token: str, client_id: str) -> sqlite3.Row | None:
        """Return a refresh token of this client's that is not over."""
        row = _find(db, token, "refresh")
        return (
            row if row is not None and row["client_id"] == client_id and self._clock() < row["expires_at"] else None
        )

    def _is_replayed(self, row: sqlite3.Row) -> bool:
        """Tell whether a refresh token was replaced by one that somebody uses, and its round is over."""
        if row["replaced_at"] is None or not self._is_over(row["replaced_at"]):
            return False
        return row["confirmed_at"] is not None or row["hash"] in self._confirming

    def _is_over(self, round_began: float) -> bool:
        return self._clock() > round_began + rounds.ROUND_SECONDS

    def _end(self, db: sqlite3.Connection, session_id: str, why: str) -> None:
        row = db.execute(
            "SELECT login, sessions.kind, client_id, clients.name AS client_name FROM sessions"
            " JOIN clients ON clients.id = client_id WHERE sessions.id = ?",
            (session_id,),
        ).fetchone()
        if row is not None:
            db.execute("DELETE FROM sessions WHERE id = ?", (session_id,))
            self._on_event(AuditEvent(event="session-ended", outcome=why, **dict(row)))


def _find(db: sqlite3.Connection, token: str, kind: Literal["access", "refresh"]) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        "SELECT tokens.*, sessions.login, sessions.kind AS proved, recheck_at, sessions.client_id, sessions.resource,"
        " clients.name AS client_name"
        " FROM tokens JOIN sessions ON sessions.id = session_id JOIN clients ON clients.id = client_id"
        " WHERE hash = ? AND tokens.kind = ?",
        (hashed(token), kind),
    ).fetchone()
    return row


def _token(row: sqlite3.Row) -> Token:
    return Token(
        session_id=row["session_id"],
        client_id=row["client_id"],
        client_name=row["client_name"],
        login=row["login"],
        kind=row["proved"],
        recheck_at=row["recheck_at"],
        capabilities=row["capabilities"].split(),
        resource=row["resource"],
        expires_at=row["expires_at"],
    )


def _code(db: sqlite3.Connection, code: str, client_id: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM codes WHERE hash = ? AND client_id = ?", (hashed(code), client_id)
    ).fetchone()
    return row


def _insert(
    db: sqlite3.Connection,
    token: str,
    kind: Literal["access", "refresh"],
    session_id: str,
    capabilities: str,
    *,
    now: float,
    parent: bytes | None = None,
) -> None:
    """Insert a token; `parent` is the refresh token that it came of. The oldest access tokens make room."""
    expires_at = now + (ACCESS_SECONDS if kind == "access" else REFRESH_SECONDS)
    db.execute(
        "INSERT INTO tokens (hash, session_id, kind, capabilities, created_at, expires_at, parent)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (hashed(token), session_id, kind, capabilities, now, expires_at, parent),
    )
    db.execute(
        "DELETE FROM tokens WHERE rowid IN (SELECT rowid FROM tokens WHERE session_id = ? AND kind = 'access'"
        " ORDER BY created_at DESC, rowid DESC LIMIT -1 OFFSET ?)",
        (session_id, MAX_ACCESS),
    )


def _prune(db: sqlite3.Connection, now: float) -> None:
    """Forget what no longer matters. Each is found by an index."""
    db.execute("DELETE FROM codes WHERE expires_at < ?", (now - USED_CODE_SECONDS,))
    db.execute("DELETE FROM codes WHERE session_id IS NULL AND expires_at < ?", (now,))
    db.execute("DELETE FROM tokens WHERE expires_at < ?", (now,))
    db.execute("DELETE FROM sessions WHERE renewal IS NULL AND recheck_at < ?", (now,))
    db.execute("DELETE FROM sessions WHERE NOT EXISTS (SELECT 1 FROM tokens WHERE session_id = sessions.id)")
