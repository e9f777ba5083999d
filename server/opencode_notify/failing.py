"""Which outlets fail, for whoever only looks: from a file that another process writes."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from opencode_common import database
from opencode_common.times import moment_text
from opencode_notify.delivery import OutletState
from opencode_notify.tables import DIRECTORY, FILE_NAME

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE: Final = 0.2
_SAID: Final = 3


def failing(state_dir: Path, person: str | None = None) -> list[OutletState]:
    """Return the outlets of a person, or of all, that took nothing when something was last sent by them.

    Args:
        state_dir: the journal's directory; where nobody was told anything yet there are none.
        person: whose, None for all.

    Raises:
        DatabaseError: what was told cannot be read.
    """
    path = state_dir / DIRECTORY / FILE_NAME
    if not path.exists():
        return []
    with closing(database.connect_to_read(path, _PATIENCE)) as connection, database.database_errors():
        rows = connection.execute(
            "SELECT * FROM outlets WHERE failing_since IS NOT NULL AND person = coalesce(?, person)"
            " ORDER BY person, outlet",
            (person,),
        ).fetchall()
    return [OutletState(**dict(row)) for row in rows]


def in_words(state: OutletState) -> str:
    """Return it as `outlet phone of ann fails since 2026-11-30 14:02 UTC: why`."""
    how = "fails" if state.disabled_at is None else "is switched off"
    since = moment_text(state.failing_since or state.disabled_at or 0.0)
    return f"outlet {state.outlet} of {state.person} {how} since {since}: {state.reason}"


def said_to(state_dir: Path | None, person: str) -> str:
    """Return which outlets of a person fail, in a line; empty: none, or it cannot be seen from here."""
    try:
        found = failing(state_dir, person) if state_dir is not None else []
    except (OSError, database.DatabaseError):
        return ""  # `opencode-gateway doctor` says so
    more = f"; and {len(found) - _SAID} more" if len(found) > _SAID else ""
    return "; ".join(map(in_words, found[:_SAID])) + more
