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
MESSAGE_ACCEPTED: Final = "message-accepted"
MESSAGE_DELIVERED: Final = "message-delivered"
MESSAGE_ANSWERED: Final = "message-answered"
MESSAGE_FAILED: Final = "message-failed"
MESSAGE_EXPIRED: Final = "message-expired"
MESSAGE_CANCELLED: Final = "message-cancelled"

KINDS: Final = frozenset(
    {
        TURN_STARTED,
        TURN_ENDED,
        TURN_FAILED,
        ASK_OPENED,
        ASK_SETTLED,
        INSTANCE_LOST,
        INSTANCE_BACK,
        MESSAGE_ACCEPTED,
        MESSAGE_DELIVERED,
        MESSAGE_ANSWERED,
        MESSAGE_FAILED,
        MESSAGE_EXPIRED,
        MESSAGE_CANCELLED,
    }
)

MESSAGE: Final = "message"
"""In an entry's data: the handle of the message that it is about."""

STOPPED: Final = "stopped"
"""In the data of a turn's end: whether somebody stopped it."""

MAX_DATA_BYTES: Final = 8 * 1024
"""Of an entry's `data` as JSON."""
MAX_NAME_CHARACTERS: Final = 1024
"""Of an instance, a session, an ask, and a key."""
KEPT: Final = "kept/"
"""What the keys of states begin with that are never pruned, and never in memory: whoever sets one removes it.

Only one copy may act on them, and copies whose journals are in memory cannot tell which.
"""


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
