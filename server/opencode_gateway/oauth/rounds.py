"""When a refresh token is good again, although it was exchanged.

Exchanging one begins a *round* of 60 s. Whoever shows it again in its round is given the same new tokens, so that a
hundred windows of one client that refresh at once have one pair between them, and a thief among them has no branch
of his own. Who asks for fewer capabilities gets another access token and the same refresh token; where that was
exchanged already, the others of the round get what came of it. So a session has one refresh token at a time.

The pair is made from the old token and the service's key: it is kept nowhere, so there is no memory to bound, and a
restart changes nothing.

After its round the token is good as long as its answer seems lost: no access token that came of it made a call, and
no refresh token that came of it was exchanged. Showing it then begins another round, with other tokens. Those of the
earlier one count as replaced long ago from then on: it may be a thief who asks now, or a thief who holds them, and
whichever of the two refreshes with his ends the session for both.

Once an answer was used and the round is over, whoever shows the old token has stolen it, or was stolen from: the
session ends.

In the database: a token's `parent` is the refresh token that it came of; of a refresh token, `replaced_at` is when
its latest round began, and `confirmed_at` when an answer to it was first used.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

ROUND_SECONDS: Final = 60
"""In which all windows of one client may use one refresh token."""


def successor(key: bytes, token: str, what: str) -> str:
    """Return 256 bits in base64 for one of the tokens that `token` is exchanged for.

    Args:
        key: the service's own: without it nobody can say what comes of a token.
        token: the old one, itself as random.
        what: tells the new token from all others that come of the same.
    """
    digest = hmac.digest(key, f"successor {what} {token}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def begin(db: sqlite3.Connection, refresh_token: bytes, parent: bytes | None, now: float) -> None:
    """Replace a refresh token, which is given as its hash; `parent` is what it came of itself.

    What an earlier round gave for it is void, and to refresh with that ends the session.
    """
    if parent is not None:
        confirm(db, parent, now)
    db.execute("DELETE FROM tokens WHERE parent = ? AND kind = 'access'", (refresh_token,))
    db.execute(
        "UPDATE tokens SET replaced_at = 0, confirmed_at = 0 WHERE parent = ? AND kind = 'refresh'", (refresh_token,)
    )
    db.execute("UPDATE tokens SET replaced_at = ? WHERE hash = ?", (now, refresh_token))


def confirm(db: sqlite3.Connection, refresh_token: bytes, now: float) -> None:
    """Note that an answer to this refresh token, given as its hash, was used."""
    db.execute("UPDATE tokens SET confirmed_at = ? WHERE hash = ? AND confirmed_at IS NULL", (now, refresh_token))


def is_confirmed(db: sqlite3.Connection, refresh_token: bytes) -> bool:
    """Tell whether that is noted, or of no importance any more."""
    row = db.execute("SELECT confirmed_at FROM tokens WHERE hash = ?", (refresh_token,)).fetchone()
    return row is None or row["confirmed_at"] is not None
