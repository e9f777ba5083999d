"""Bearer tokens for machines: made by the owner, named, stored as a hash, revoked by name."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastmcp.server.auth import AccessToken, TokenVerifier

from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.errors import CommandRefused
from opencode_gateway.store import hashed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from opencode_gateway.capabilities import Capability
    from opencode_gateway.store import Store

PREFIX: Final = "ogm_"
"""By which such a token is told from others, also by programs that look for secrets in files."""
MAX_TOKENS: Final = 200
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_BYTES: Final = 32


@dataclass(frozen=True)
class MachineToken:
    """A token as lists show it. Times are seconds since the epoch."""

    name: str
    capabilities: tuple[str, ...]
    created_at: float
    expires_at: float | None


class MachineTokens(TokenVerifier):
    """Verifies bearer tokens of machines.

    Args:
        resource: the URL that they are for.
        clock: seconds since the epoch.
    """

    def __init__(self, store: Store, resource: str, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._store = store
        self._resource = resource
        self._clock = clock

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return what a token may do; None if it is none of ours, was revoked or is over."""
        if not token.startswith(PREFIX):
            return None
        with self._store.transaction(write=False) as db:
            row = db.execute("SELECT * FROM machine_tokens WHERE hash = ?", (hashed(token),)).fetchone()
        if row is None or (row["expires_at"] is not None and self._clock() >= row["expires_at"]):
            return None
        name = row["name"]
        return AccessToken(
            token=token,
            client_id=f"token:{name}",
            scopes=row["capabilities"].split(),
            expires_at=None if row["expires_at"] is None else int(row["expires_at"]),
            resource=self._resource,
            subject=name,
            claims={"login": name, "client_name": name, "kind": "token"},
        )


def add(
    store: Store, name: str, capabilities: Iterable[Capability], *, now: float, expires_at: float | None = None
) -> str:
    """Make a token and return it: it is in no other place.

    Raises:
        Refused: the name is taken or not one, no capability is given, there are too many, or it would be over.
    """
    held = [capability for capability in CAPABILITIES if capability in set(capabilities)]
    if not _NAME.fullmatch(name):
        raise CommandRefused(
            "a token's name has lower-case letters, digits and . _ -, at most 63, a letter or digit first"
        )
    if not held:
        raise CommandRefused(f"name at least one --capability of {', '.join(CAPABILITIES)}")
    if expires_at is not None and expires_at <= now:
        raise CommandRefused("the token would be over already: name a later end")
    token = PREFIX + secrets.token_urlsafe(_BYTES)
    with store.transaction() as db:
        if db.execute("SELECT 1 FROM machine_tokens WHERE name = ?", (name,)).fetchone():
            raise CommandRefused(f"there is a token {name!r} already: revoke it first, or take another name")
        if int(db.execute("SELECT count(*) FROM machine_tokens").fetchone()[0]) >= MAX_TOKENS:
            raise CommandRefused(f"there are {MAX_TOKENS} tokens already: revoke some")
        db.execute(
            "INSERT INTO machine_tokens (name, hash, capabilities, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
            (name, hashed(token), " ".join(held), now, expires_at),
        )
    return token


def revoke(store: Store, name: str) -> None:
    """End a token at once.

    Raises:
        Refused: there is none of this name.
    """
    with store.transaction() as db:
        if db.execute("DELETE FROM machine_tokens WHERE name = ?", (name,)).rowcount == 0:
            raise CommandRefused(f"there is no token {name[:200]!r}: see `sudo opencode-gateway tokens list`")


def list_tokens(store: Store) -> list[MachineToken]:
    """Return all tokens by name, those that are over too."""
    with store.transaction(write=False) as db:
        return [_shown(row) for row in db.execute("SELECT * FROM machine_tokens ORDER BY name")]


def _shown(row: sqlite3.Row) -> MachineToken:
    return MachineToken(row["name"], tuple(row["capabilities"].split()), row["created_at"], row["expires_at"])
