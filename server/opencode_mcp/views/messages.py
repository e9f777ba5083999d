"""Messages that are kept until they can be sent: what programs get of them, and lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_common.text import fence, one_line, quote_name
from opencode_common.times import moment_text
from opencode_mcp.views.rows import Row
from opencode_mcp.views.times import age_text
from opencode_mcp.views.turns import SendResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.later import Kept
    from opencode_fleet.outbox import Message

MAX_MESSAGES: Final = 50
"""That one answer lists."""
_ABOUT: Final = 60
_STEPS: Final = {"waits": "waits", "sending": "is being sent", "sent": "runs there"}


class MessageRow(Row):
    """A message. `step`: waits, sending, or sent: then its turn runs. `since` and `until`: epoch seconds."""

    handle: str
    instance: str
    about: str
    step: str
    by: str
    session: str = ""
    since: float
    until: float


def message_row(message: Message) -> MessageRow:
    """Return what programs get of a message."""
    return MessageRow.model_construct(
        handle=message.handle,
        instance=message.instance,
        about=one_line(message.about, _ABOUT),
        step=message.step,
        by=one_line(message.by, _ABOUT),
        session=message.to,
        since=message.at,
        until=message.expires,
    )


def messages_text(rows: Sequence[MessageRow], left_out: int, now: float) -> str:
    """Return the messages, a line each, and how one is cancelled."""
    lines = [
        f"{row.handle} · {row.instance} · {_STEPS[row.step]}, {age_text(now - row.since)} by {row.by} · “{row.about}”"
        for row in rows
    ]
    more = f" {left_out} more are not listed." if left_out else ""
    how = f"`control` takes back one that waits: action='cancel', value={rows[0].handle!r}."
    return "\n".join([fence("\n".join(lines)), how + more])


def kept(kept_: Kept) -> tuple[str, SendResult]:
    """Return that a message is kept, for people and for programs."""
    message = kept_.message
    until = moment_text(message.expires)
    text = (
        f"instance {quote_name(message.instance)}: {kept_.why}. The message is kept as {message.handle} and "
        f"sent once that is possible, or given up after {until}; do not send it again. "
        f"`inbox` lists it and tells of its end; `control` takes it back: action='cancel', value={message.handle!r}."
    )
    note = f"kept as {message.handle} until {until}: {kept_.why}"
    return text, SendResult(instance=message.instance, session=message.to, result="kept", when="asleep", note=note)
