"""A database of release 0.1.0 in the hands of this one: who stays, and whose logins end once."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from opencode_gateway import store as stores
from opencode_gateway.oauth.enrolment import list_clients
from opencode_gateway.oauth.sessions import list_sessions
from opencode_gateway.store import FILE_NAME, Store
from support.gateway.authorization import CALLBACK, AuthorizationServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What `teams/state.py` of that release made beside its migration.
PROVIDER_STATE = """
    CREATE TABLE IF NOT EXISTS provider_state (
        collection TEXT NOT NULL, key BLOB NOT NULL, value TEXT NOT NULL, expires_at REAL NOT NULL,
        source TEXT NOT NULL,
        PRIMARY KEY (collection, key)) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS provider_state_by_expiry ON provider_state (collection, expires_at);
"""
UNKEPT = "a refresh token of the provider, encrypted"


@pytest.fixture
def old(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Make the file as that release does."""
    path = tmp_path / FILE_NAME
    path.touch(0o600)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(stores._MIGRATIONS[0])
        database.execute("PRAGMA user_version = 1")
        yield database


def insert(database: sqlite3.Connection, table: str, *values: object) -> None:
    with database:
        database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608 # ours


def log_in(database: sqlite3.Connection, session: str, login: str, resource: str, *tokens: str) -> None:
    now = time.time()
    insert(database, "sessions", session, login, "chat", "observe drive", resource, now, now)
    for kind, token in zip(("access", "refresh"), tokens, strict=False):
        insert(database, "tokens", stores.hashed(token), session, kind, "observe drive", now, now + 80_000, None)


@pytest.fixture
def filled(old: sqlite3.Connection, server_url: str) -> sqlite3.Connection:
    now = time.time()
    insert(old, "clients", "chat", "Chat", 0, CALLBACK, now, now)
    insert(old, "clients", "https://chat.example/client.json", "Other", 1, CALLBACK, now, now)
    insert(old, "machine_tokens", "nightly", b"h", "observe", now, None)
    log_in(old, "of ann", "ann", server_url, "access token", "refresh token")
    old.executescript(PROVIDER_STATE)
    log_in(old, "of a team", "cat@example.org", server_url)
    insert(old, "provider_state", "mcp-upstream-tokens", b"k", UNKEPT, now + 3600, "127.0.0.1")
    return old


@pytest.fixture
def server_url() -> str:
    return "https://relay.example.org/mcp"


async def test_people_clients_and_logins_with_a_password_stay(filled: sqlite3.Connection, tmp_path: Path) -> None:
    filled.close()

    server = AuthorizationServer(tmp_path)

    assert sorted(client.name for client in list_clients(server.store)) == ["Chat", "Other"]
    token = await server.provider.verify_token("access token")
    assert token is not None
    assert (token.subject, token.scopes, token.claims["kind"]) == ("ann", ["observe", "drive"], "password")
    refreshed = await server.refresh("chat", "refresh token")
    assert refreshed.status_code == 200
    assert await server.is_good(refreshed.json()["access_token"])
    with server.store.transaction(write=False) as db:
        assert [row["name"] for row in db.execute("SELECT name FROM machine_tokens")] == ["nightly"]
    await server.close()


async def test_logins_of_teams_end_once_and_what_was_kept_of_them_is_gone(
    filled: sqlite3.Connection, tmp_path: Path
) -> None:
    filled.close()

    store = Store(tmp_path / FILE_NAME)

    assert [session.login for session in list_sessions(store)] == ["ann"]
    with store.transaction(write=False) as db:
        names = [row["name"] for row in db.execute("SELECT name FROM sqlite_master")]
    assert [name for name in names if name.startswith("provider_state")] == []
    store.close()
    # Not even in pages that are free now.
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith(FILE_NAME))
    assert b"nightly" in written
    assert UNKEPT.encode() not in written


def test_a_database_that_never_knew_a_team_is_brought_up_too(old: sqlite3.Connection, tmp_path: Path) -> None:
    old.close()
    store = Store(tmp_path / FILE_NAME)
    with store.transaction(write=False) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(stores._MIGRATIONS)
    assert list_sessions(store) == []
    store.close()
