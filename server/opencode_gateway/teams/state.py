"""What FastMCP's proxy keeps between requests, in the gateway's database: encrypted, bounded, and in its backups.

FastMCP takes any `AsyncKeyValue`. Of those that exist, the ones on files have no limit (FastMCP culls only the one
that it makes itself), the bounded one forgets all at a restart, and the rest are servers or further libraries. So
this is one more table in the database that there is anyway.

Keys are stored as hashes, since codes are among them. Values are encrypted by the library's Fernet wrapper.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cryptography.fernet import Fernet
from key_value.aio.stores.base import BaseStore
from key_value.aio.wrappers.encryption import FernetEncryptionWrapper

from opencode_gateway.store import hashed

if TYPE_CHECKING:
    from collections.abc import Callable

    from key_value.aio._utils.managed_entry import ManagedEntry
    from key_value.aio.protocols import AsyncKeyValue

    from opencode_gateway.store import Store

MAX_STRANGERS: Final = 300
"""Entries of a collection that somebody fills before they log in."""
MAX_OTHERS: Final = 10_000
"""Entries of a collection that only people who logged in fill."""
MAX_BYTES: Final = 96 * 1024
"""Of one entry, encrypted."""
DEFAULT_SECONDS: Final = 3600
"""For an entry without a lifetime; FastMCP has one that we do not use."""
_STRANGERS: Final = frozenset({"mcp-oauth-transactions", "mcp-consent-csrf-tokens"})
_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS provider_state (
        collection TEXT NOT NULL, key BLOB NOT NULL, value TEXT NOT NULL, expires_at REAL NOT NULL,
        source TEXT NOT NULL,
        PRIMARY KEY (collection, key)) STRICT, WITHOUT ROWID
"""
_INDEX: Final = "CREATE INDEX IF NOT EXISTS provider_state_by_expiry ON provider_state (collection, expires_at)"
# Kept are the last of each source, then the last but one of each, and so on, as far as there is room.
_MAKE_ROOM: Final = """
    DELETE FROM provider_state WHERE collection = ?1 AND key IN (
        SELECT key FROM (
            SELECT key, expires_at, row_number() OVER (PARTITION BY source ORDER BY expires_at DESC) AS place
            FROM provider_state WHERE collection = ?1 AND key <> ?2)
        ORDER BY place, expires_at DESC LIMIT -1 OFFSET ?3)
"""


class EntryTooLarge(Exception):
    """An entry is beyond `MAX_BYTES`; nothing was stored."""


class ProviderState(BaseStore):
    """An `AsyncKeyValue` in a table of the gateway's database.

    A collection that is full lets go of an entry of the source that has most there, of that which would have expired
    first: whoever begins logins by the hundred pushes out nobody's but their own.

    Args:
        source: where what is stored now comes from, as a network.
        clock: seconds since the epoch.
    """

    def __init__(
        self, store: Store, *, source: Callable[[], str] = lambda: "", clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(stable_api=True)  # otherwise each start warns that this class may change
        self._store = store
        self._source = source
        self._clock = clock
        with store.transaction() as db:
            db.execute(_TABLE)
            db.execute(_INDEX)

    async def _get_managed_entry(self, *, collection: str, key: str) -> ManagedEntry | None:
        with self._store.transaction(write=False) as db:
            row = db.execute(
                "SELECT value FROM provider_state WHERE collection = ? AND key = ? AND expires_at > ?",
                (collection, hashed(key), self._clock()),
            ).fetchone()
        return None if row is None else self._serialization_adapter.load_json(json_str=row["value"])

    async def _put_managed_entry(self, *, collection: str, key: str, managed_entry: ManagedEntry) -> None:
        value = self._serialization_adapter.dump_json(entry=managed_entry, collection=collection)
        if len(value) > MAX_BYTES:
            raise EntryTooLarge(f"an entry of {collection} has {len(value)} bytes, and {MAX_BYTES} is the most")
        now = self._clock()
        lifetime = DEFAULT_SECONDS if managed_entry.ttl is None else managed_entry.ttl
        room = MAX_STRANGERS if collection in _STRANGERS else MAX_OTHERS
        with self._store.transaction() as db:
            db.execute("DELETE FROM provider_state WHERE collection = ? AND expires_at <= ?", (collection, now))
            db.execute(
                "INSERT OR REPLACE INTO provider_state VALUES (?, ?, ?, ?, ?)",
                (collection, hashed(key), value, now + lifetime, self._source()),
            )
            held = db.execute("SELECT count(*) FROM provider_state WHERE collection = ?", (collection,)).fetchone()[0]
            if held > room:
                db.execute(_MAKE_ROOM, (collection, hashed(key), room - 1))

    async def _delete_managed_entry(self, *, key: str, collection: str) -> bool:
        with self._store.transaction() as db:
            return (
                db.execute(
                    "DELETE FROM provider_state WHERE collection = ? AND key = ?", (collection, hashed(key))
                ).rowcount
                == 1
            )


def encrypted(state: ProviderState, key: bytes) -> AsyncKeyValue:
    """Return `state`, encrypted. What another key has written is as if it were not there: people log in anew."""
    return FernetEncryptionWrapper(state, fernet=Fernet(key), raise_on_decryption_error=False)
