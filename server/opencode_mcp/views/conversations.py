"""A conversation as text: its messages with tool calls, what streams right now, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_common.text import clean, cut_tail, fence, one_line, quote_name
from opencode_mcp.views.asks import AskRow
from opencode_mcp.views.rows import OWN_WORDS, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opencode_fleet.model import Message, Part, Session, ToolCall

OUTPUT_LENGTH = 600
"""Characters of a tool's output, its end."""
ARGUMENT_LENGTH = 160


class MessageRow(Row):
    """One message of a conversation."""

    role: str
    text: str


class ReadResult(Row):
    """The end of a conversation."""

    instance: str
    session: str
    title: str
    state: str
    agent: str = ""
    model: str = ""
    problem: str = ""
    messages: list[MessageRow]
    asks: list[AskRow] = []


def message_rows(
    messages: Sequence[Message], live: Mapping[str, str], max_chars: int, *, busy: bool
) -> list[MessageRow]:
    """Return the messages, newest last, that fit an answer of `max_chars`: older ones are cut first, visibly.

    `busy`: whether the session runs; where it does not, no tool call is under way, whatever its record says.
    """
    rows: list[MessageRow] = []
    left = max_chars - OWN_WORDS
    for index, message in enumerate(reversed(messages)):
        text = _message_text(message, live, busy=busy)
        if not text:
            continue
        if left <= 0:
            note = f"[{len(messages) - index} older messages cut; ask for a larger max_chars]"
            rows.append(MessageRow(role="note", text=note))
            break
        rows.append(MessageRow(role=message.role, text=cut_tail(text, left, "ask for a larger max_chars")))
        left -= len(text) + len(f"{message.role}: \n\n")
    return rows[::-1]


def _message_text(message: Message, live: Mapping[str, str], *, busy: bool) -> str:
    lines = ["[a summary of what was before, made to save room]"] if message.is_summary else []
    lines += [line for part in message.parts if (line := _part_text(part, live, busy=busy))]
    if message.retry:
        lines.append(f"[the model is asked again] {one_line(message.retry, 300)}")
    if message.error:
        lines.append(f"[error] {one_line(message.error, 500)}")
    return "\n".join(lines)


def _part_text(part: Part, live: Mapping[str, str], *, busy: bool) -> str:
    if part.kind == "text":
        streaming = not part.text and part.id in live
        text = clean(part.text or live.get(part.id, ""))
        return f"{text} [… being written]" if streaming and text else text
    if part.kind == "tool" and part.call is not None:
        return _call_text(part.call, busy=busy)
    if part.kind == "file":
        return f"[file] {one_line(part.text, ARGUMENT_LENGTH)}"
    return ""


def _call_text(call: ToolCall, *, busy: bool) -> str:
    status = call.status if busy or call.status in {"completed", "error"} else "interrupted"
    line = f"[{one_line(call.name, 40)}: {status}] {one_line(call.title, ARGUMENT_LENGTH)}"
    if call.status == "error":
        return f"{line} — {one_line(call.error, 300)}"
    output = clean(call.output.strip())
    return f"{line}\n{_indented(_end_of(output))}" if output else line


def _end_of(output: str) -> str:
    """Return the last lines of a tool's output, which say how it went; a mark says that more was before."""
    kept = output[-OUTPUT_LENGTH:]
    return kept if len(kept) == len(output) else f"… {kept}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


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
    head = f"instance {quote_name(read.instance)}, session {read.session}, {read.state}:"
    agent = f"agent {one_line(read.agent, 60)}" if read.agent else ""
    model = f"model {one_line(read.model, 60)}" if read.model else ""
    title = " · ".join(part for part in (f"“{read.title}”", agent, model) if part)
    blocks = [f"{row.role}: {row.text}" for row in read.messages]
    text = "\n".join([head, fence("\n\n".join([title, *blocks]))])
    if read.problem:
        text += f"\nNot all is well: {fence(read.problem)}"
    return f"{text}\nIt waits:\n{asks}" if asks else text


def session_manner(session: Session, messages: Sequence[Message]) -> tuple[str, str]:
    """Return the agent and the model that a session is in, by its record or else its last message that tells."""
    told = next((message for message in reversed(messages) if message.agent), None)
    agent = session.agent or (told.agent if told else "")
    model = session.model or (told.model if told else "")
    return one_line(agent, 60), one_line(model, 120)
