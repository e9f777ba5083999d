"""The passkeys that people have added, as the database has them: public keys alone."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from opencode_common.text import one_line
from opencode_gateway.errors import CommandRefused

if TYPE_CHECKING:
    import sqlite3

    from opencode_gateway.store import Store

MAX_PASSKEYS: Final = 10
"""Of one person."""
MAX_NAME: Final = 60


@dataclass(frozen=True)
class Passkey:
    """A passkey as lists show it. Times are seconds since the epoch."""

    id: str
    """By which people name it."""
    login: str
    name: str
    """Of the device, as its owner calls it."""
    site: str
    """The host that it was added at. It is of no use at another."""
    created_at: float
    used_at: float | None
    credential: str
    """Its own id and its public key (COSE), base64url: what a proof in the audit log is checked with."""
    public_key: str


@dataclass(frozen=True)
class Key:
    """What a signature is checked against."""

    passkey: Passkey
    credential: bytes
    user_handle: bytes = field(repr=False)
    """What its device knows the person by."""
    public_key: bytes = field(repr=False)
    sign_count: int
    transports: tuple[str, ...]
    """How a browser reaches it."""


def keys(store: Store, login: str, site: str | None = None) -> list[Key]:
    """Return a person's passkeys, oldest first: those of one site, or all."""
    with store.transaction(write=False) as db:
        rows = db.execute(
            "SELECT * FROM passkeys WHERE login = ? AND site = coalesce(?, site) ORDER BY created_at, id",
            (login, site),
        ).fetchall()
    return [_key(row) for row in rows]


def passkeys(store: Store, login: str) -> list[Passkey]:
    """Return a person's passkeys as lists show them, oldest first."""
    return [key.passkey for key in keys(store, login)]


def find(store: Store, credential: bytes, site: str) -> Key | None:
    """Return the passkey of this id."""
    with store.transaction(write=False) as db:
        row = db.execute("SELECT * FROM passkeys WHERE credential = ? AND site = ?", (credential, site)).fetchone()
    return None if row is None else _key(row)


def add(db: sqlite3.Connection, key: Key) -> None:
    """Add one, whose `passkey.id` is of `new_id`.

    Raises:
        Refused: the person has as many as there may be, or it is there already, as anybody's.
    """
    login = key.passkey.login
    if int(db.execute("SELECT count(*) FROM passkeys WHERE login = ?", (login,)).fetchone()[0]) >= MAX_PASSKEYS:
        raise CommandRefused(f"You have {MAX_PASSKEYS} passkeys, which is as many as there may be: remove one first")
    if db.execute("SELECT 1 FROM passkeys WHERE credential = ?", (key.credential,)).fetchone():
        raise CommandRefused("This passkey is there already: remove it first, or take another device")
    db.execute(
        "INSERT INTO passkeys (id, login, name, site, created_at, credential, user_handle, public_key, sign_count,"
        " transports) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key.passkey.id,
            login,
            key.passkey.name,
            key.passkey.site,
            key.passkey.created_at,
            key.credential,
            key.user_handle,
            key.public_key,
            key.sign_count,
            " ".join(key.transports),
        ),
    )


def used(db: sqlite3.Connection, key: Key, sign_count: int, now: float) -> bool:
    """Note a signature; False if the passkey is gone, or has signed with as high a count meanwhile."""
    counts = "UPDATE passkeys SET sign_count = ?, used_at = ? WHERE credential = ?"
    # One that counts at all counts up each time; one that a person's devices share never counts.
    rises = " AND (sign_count < ? OR (sign_count = 0 AND ? = 0))"
    return bool(db.execute(counts + rises, (sign_count, now, key.credential, sign_count, sign_count)).rowcount)


def remove(db: sqlite3.Connection, login: str, passkey_id: str) -> str | None:
    """Remove one of a person's; return its name, None if there is none of this id."""
    row = db.execute("DELETE FROM passkeys WHERE login = ? AND id = ? RETURNING name", (login, passkey_id)).fetchone()
    return None if row is None else str(row["name"])


def remove_all(db: sqlite3.Connection, login: str) -> int:
    """Remove all of a person's; return how many those were."""
    return db.execute("DELETE FROM passkeys WHERE login = ?", (login,)).rowcount


def new_id() -> str:
    """Return a new name for programs and commands."""
    return secrets.token_hex(4)


def device_name(typed: str) -> str:
    """Return what a device is called from now on."""
    return one_line(typed, MAX_NAME) or "passkey"


def base64url(content: bytes) -> str:
    """Return bytes as browsers and proofs have them."""
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _key(row: sqlite3.Row) -> Key:
    return Key(
        Passkey(
            id=row["id"],
            login=row["login"],
            name=row["name"],
            site=row["site"],
            created_at=row["created_at"],
            used_at=row["used_at"],
            credential=base64url(row["credential"]),
            public_key=base64url(row["public_key"]),
        ),
        row["credential"],
        row["user_handle"],
        row["public_key"],
        row["sign_count"],
        tuple(row["transports"].split()),
    )
