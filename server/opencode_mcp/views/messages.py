"""Messages that are kept until they can be sent: what programs get of them, and lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_common.text import fence, one_line, quote_name
from opencode_common.times import moment_text
from opencode_mcp.views.rows import Row
from opencode_mcp.views.times import age_text
from opencode_mcp.views.turns import SendResult

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from opencode_fleet.later import Kept
    from opencode_fleet.outbox import KeptMessage
    from opencode_mcp.handles import Handles

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
    session_handle: str = ""
    since: float
    until: float
    files: list[str] = []


def message_rows(messages: Sequence[KeptMessage], handles: Handles) -> list[MessageRow]:
    """Return what programs get of messages."""
    handles.prepare("s", [(message.instance, message.to) for message in messages if message.to])
    return [_row(message, handles) for message in messages]


def _row(message: KeptMessage, handles: Handles) -> MessageRow:
    return MessageRow.model_construct(
        handle=message.handle,
        instance=message.instance,
        about=one_line(message.about, _ABOUT),
        step=message.step,
        by=one_line(message.by, _ABOUT),
        session=message.to,
        session_handle=handles.of_session(message.instance, message.to) if message.to else "",
        since=message.at,
        until=message.expires,
        files=[one_line(name, _ABOUT) for name in message.files],
    )


def messages_text(rows: Sequence[MessageRow], left_out: int, now: float) -> str:
    """Return the messages, a line each, and how one is cancelled."""
    lines = [_line(row, now) for row in rows]
    waiting = next((row.handle for row in rows if row.step == "waits"), "")
    running = next((row.session_handle for row in rows if row.step == "sent"), "")
    how = [
        f"`control` takes back one that waits: action='cancel', value={waiting!r}." if waiting else "",
        f"`control` stops one that runs: action='stop', session={running!r}." if running else "",
        f"{left_out} more are not listed." if left_out else "",
    ]
    return "\n".join([fence("\n".join(lines)), " ".join(filter(None, how))])


def _line(row: MessageRow, now: float) -> str:
    step = f"{_STEPS[row.step]}, {age_text(now - row.since)} by {row.by}"
    files = f" with {', '.join(row.files)}" if row.files else ""
    return f"{row.handle} · {_where(row)} · {step} · “{row.about}”{files}"


def messages_head(steps: Counter[str]) -> str:
    """Return how many messages are at which step."""
    waiting, others = steps["waits"], steps.total() - steps["waits"]
    parts = [f"{waiting} {'message waits' if waiting == 1 else 'messages wait'} for an instance"] if waiting else []
    if others:
        parts.append(f"{others} {'message that waited is' if others == 1 else 'messages that waited are'} on the way")
    return ", and ".join(parts)


def _where(row: MessageRow) -> str:
    return " · ".join(filter(None, (row.instance, row.session_handle if row.step != "waits" else "")))


def kept(kept_: Kept) -> tuple[str, SendResult]:
    """Return that a message is kept, for people and for programs."""
    message = kept_.message
    until = moment_text(message.expires)
    files = (
        f" with its {len(message.files)} files" if len(message.files) > 1 else " with its file" * len(message.files)
    )
    text = (
        f"instance {quote_name(message.instance)}: {kept_.why}. The message is kept as {message.handle}{files} and "
        f"sent once that is possible, or given up after {until}; do not send it again. "
        f"`inbox` lists it and tells of its end; `control` takes it back: action='cancel', value={message.handle!r}."
    )
    note = f"kept as {message.handle} until {until}: {kept_.why}"
    return text, SendResult(instance=message.instance, session=message.to, result="kept", when="asleep", note=note)
