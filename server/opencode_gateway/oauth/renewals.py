"""Who may renew a client that has a document, without a window: whoever granted it something before.

One chat service has one document for all its users, so its id says nothing about whose client asks: a new one needs
the window. But a person who has once let it in must not depend on the owner for the next time. What says that it is
theirs is the cookie that their login left in their browser, and what is written down here. The cookie lets nobody
in: its login, and no other, still has to log in and to consent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

RENEWAL_SECONDS: Final = 180 * 24 * 3600
"""Since the last consent: as long as the cookie lasts."""
MAX_RENEWALS: Final = 500
"""The oldest makes room. Only people who logged in and consented add to them."""


def may_renew(db: sqlite3.Connection, client_id: str, login: str, now: float) -> bool:
    """Tell whether this person granted this client something, and nobody has taken it back."""
    return (
        db.execute(
            "SELECT 1 FROM renewals WHERE client_id = ? AND login = ? AND at > ?",
            (client_id, login, now - RENEWAL_SECONDS),
        ).fetchone()
        is not None
    )


def note_renewal(db: sqlite3.Connection, client_id: str, login: str, now: float) -> None:
    """Note that this person granted this client something. The client is in the database."""
    db.execute("INSERT OR REPLACE INTO renewals (client_id, login, at) VALUES (?, ?, ?)", (client_id, login, now))
    db.execute("DELETE FROM renewals WHERE at <= ?", (now - RENEWAL_SECONDS,))
    db.execute(
        "DELETE FROM renewals WHERE rowid IN"
        " (SELECT rowid FROM renewals ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET ?)",
        (MAX_RENEWALS,),
    )
