"""What the journal is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

TURN_STARTED: Final = "turn-started"
TURN_ENDED: Final = "turn-ended"
TURN_FAILED: Final = "turn-failed"
ASK_OPENED: Final = "ask-opened"
ASK_SETTLED: Final = "ask-settled"
INSTANCE_LOST: Final = "instance-lost"
INSTANCE_BACK: Final = "instance-back"

KINDS: Final = frozenset(
    {
        TURN_STARTED,
        TURN_ENDED,
        TURN_FAILED,
        ASK_OPENED,
        ASK_SETTLED,
        INSTANCE_LOST,
        INSTANCE_BACK,
    }
)

MAX_DATA_BYTES: Final = 8 * 1024
"""Of an entry's `data` as JSON."""
MAX_NAME_CHARACTERS: Final = 1024
"""Of an instance, a session, an ask, and a key."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened; `session` and `ask` are empty where it is about none."""

    seq: int
    """Grows with each entry of an epoch; numbers may be left out."""
    at: float
    """Seconds since the epoch, by this machine's clock."""
    kind: str
    """One of `KINDS`."""
    instance: str
    session: str = ""
    ask: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    """JSON of at most `MAX_DATA_BYTES`."""
