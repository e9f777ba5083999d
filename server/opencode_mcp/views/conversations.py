"""A conversation as text: its messages with tool calls, what streams right now, and what is wrong with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opencode_common.text import clean, cut_tail, fence, one_line, quote_name
from opencode_common.times import moment_text
from opencode_mcp.views.asks import AskRow
from opencode_mcp.views.calls import ARGUMENT_LENGTH, call_text
from opencode_mcp.views.rows import OWN_WORDS, Result, Row
from opencode_mcp.views.times import age_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opencode_fleet.model import Message, Part, Session


class MessageRow(Row):
    """One message of a conversation. `at`: epoch seconds."""

    id: str = ""
    role: str
    at: float = 0
    text: str


class ReadResult(Result):
    """A piece of a conversation. `known`: epoch seconds when it was so; 0: now. `older`: what leads further back."""

    instance: str
    session: str
    title: str
    state: str
    known: float = 0
    agent: str = ""
    model: str = ""
    problem: str = ""
    messages: list[MessageRow]
    older: str = ""
    asks: list[AskRow] = []


def message_rows(
    messages: Sequence[Message], live: Mapping[str, str], max_chars: int, *, busy: bool, details: bool = False
) -> list[MessageRow]:
    """Return the messages, newest last, that fit an answer of `max_chars`: older ones are cut first, visibly.

    Args:
        messages: oldest first.
        live: what is being written, by part.
        max_chars: of all texts together.
        busy: whether the session runs; where it does not, no tool call is under way, whatever its record says.
        details: whether tool calls are shown with more of their outputs, and with what they changed.
    """
    rows: list[MessageRow] = []
    left = max_chars - OWN_WORDS
    has_next = False
    for index, message in enumerate(reversed(messages)):
        text = _message_text(message, live, busy=busy, details=details, has_next=has_next)
        has_next = has_next or message.role == "assistant"
        if not text:
            continue
        if left <= 0:
            note = f"[{len(messages) - index} older messages cut; ask for a larger max_chars]"
            rows.append(MessageRow(role="note", text=note))
            break
        shown = cut_tail(text, left, "ask for a larger max_chars")
        rows.append(MessageRow(id=message.id, role=message.role, at=message.created, text=shown))
        left -= len(text) + len(_time_line(message.created)) + len(f"{message.role}: \n\n\n")
    return rows[::-1]


def _message_text(message: Message, live: Mapping[str, str], *, busy: bool, details: bool, has_next: bool) -> str:
    lines = ["[a summary of what was before, made to save room]"] if message.is_summary else []
    lines += [line for part in message.parts if (line := _part_text(part, live, busy=busy, details=details))]
    if message.retry:
        lines.append(f"[the model is asked again] {one_line(message.retry, 300)}")
    if message.error:
        lines.append(f"[error] {one_line(message.error, 500)}")
    elif has_next and message.role == "assistant" and message.completed is None and not message.retry:
        # Of the newest it is said beside the conversation, with what helps.
        lines.append("[broken off here]")
    return "\n".join(lines)


def _part_text(part: Part, live: Mapping[str, str], *, busy: bool, details: bool) -> str:
    if part.kind == "text":
        streaming = not part.text and part.id in live
        text = clean(part.text or live.get(part.id, ""))
        return f"{text} [… being written]" if streaming and text else text
    if part.kind == "tool" and part.call is not None:
        return call_text(part.call, busy=busy, details=details)
    if part.kind == "file":
        return f"[file] {one_line(part.text, ARGUMENT_LENGTH)}"
    return ""


def session_problem(messages: Sequence[Message], *, busy: bool, pick_up: str) -> str:
    """Say in our words what is wrong with an idle session's last turn, and how to go on; empty if nothing is."""
    newest = next((message for message in reversed(messages) if message.role != "note"), None)
    if busy or newest is None:
        return ""
    if newest.role == "user":
        return f"its last message has no answer; {pick_up}"
    if newest.completed is None and not newest.error:
        return f"its last answer was broken off and nothing writes it any more; {pick_up}"
    return ""


def read_text(read: ReadResult, asks: str) -> str:
    """Return a conversation for the model; `asks`: the text of those that it waits for, if any."""
    state = read.state
    if read.known:
        state += f"; this was known at {moment_text(read.known)} ({age_text(time.time() - read.known)})"
    head = f"instance {quote_name(read.instance)}, session {read.session}, {state}:"
    agent = f"agent {one_line(read.agent, 60)}" if read.agent else ""
    model = f"model {one_line(read.model, 60)}" if read.model else ""
    title = " · ".join(part for part in (f"“{read.title}”", agent, model) if part)
    text = "\n".join([head, fence("\n\n".join([title, *_blocks(read.messages)]))])
    if read.problem:
        text += f"\nNot all is well: {fence(read.problem)}"
    if read.older:
        text += f"\nOlder messages: `read` with before={read.older}."
    return f"{text}\nIt waits:\n{asks}" if asks else text


def _blocks(rows: Sequence[MessageRow]) -> list[str]:
    """Return the messages, each with a line of its time above it where that is another than the one before."""
    blocks = []
    told = ""
    for row in rows:
        line = _time_line(row.at)
        blocks.append(f"{line}\n{row.role}: {row.text}" if line not in {"", told} else f"{row.role}: {row.text}")
        told = line or told
    return blocks


def _time_line(at: float) -> str:
    return f"[{moment_text(at)}]" if at else ""


def session_manner(session: Session, messages: Sequence[Message]) -> tuple[str, str]:
    """Return the agent and the model that a session is in, by its record or else its last message that tells."""
    told = next((message for message in reversed(messages) if message.agent), None)
    agent = session.agent or (told.agent if told else "")
    model = session.model or (told.model if told else "")
    return one_line(agent, 60), one_line(model, 120)
