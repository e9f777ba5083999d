"""What the tools show: short text for the model and the person, beside the rows for programs, all of it cleaned."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from opencode_common.text import bare, clean, cut_head, cut_tail, fence, one_line, quote_name
from opencode_mcp.asks import ask_row, gist
from opencode_mcp.rows import InstanceRow, InstancesResult, MessageRow, ReadResult, TurnResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Message, Outcome, Part, Session, ToolCall

MAX_TEXT = 12_000
"""Characters of one answer, unless asked otherwise: what a chat's model can well take in."""
OWN_WORDS = 600
"""Of these, what is kept for our own words around the instance's."""
MAX_ROWS = 200
MAX_LISTING = 20_000
"""Instances and characters of one listing, whatever registers."""
DIRECTORY_LENGTH = 120
TITLE_LENGTH = 60
OUTPUT_LENGTH = 600
"""Characters of a tool's output, its end."""
BY_DEFAULT = frozenset({"observe", "drive", "approve"})
"""What the owner of a machine lets through, unless asked otherwise."""
ARGUMENT_LENGTH = 160


# -- instances -----------------------------------------------------------------------------------------------------


class InstanceRows:
    """The rows and lines of instances, each made anew only when its instance has changed."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Instance, tuple[int, InstanceRow, str]] = WeakKeyDictionary()

    def of(self, instance: Instance) -> tuple[InstanceRow, str]:
        """Return the instance's row and line."""
        made = self._made.get(instance)
        if made is None or made[0] != instance.version:
            row = _instance_row(instance)
            made = instance.version, row, _instance_line(row)
            self._made[instance] = made
        return made[1], made[2]


def _instance_row(instance: Instance) -> InstanceRow:
    state = instance.state
    newest = state.newest_root()
    asks = state.pending_asks()
    waits_for = ""
    if asks:
        others = len(asks) - 1 + state.asks_left_out
        more = f" (+{others} more)" if others else ""
        waits_for = one_line(gist(asks[0]), ARGUMENT_LENGTH) + more
    elif retries := state.retries():
        waits_for = one_line(retries[0].describe(), ARGUMENT_LENGTH)
    elif not instance.connected.is_set():
        waits_for = one_line(bare(instance.trouble), ARGUMENT_LENGTH)
    return InstanceRow.model_construct(
        name=instance.name,
        state=instance.state_name(),
        directory=one_line(state.directory or instance.endpoint.directory, DIRECTORY_LENGTH),
        hostname=one_line(instance.endpoint.hostname, 80),
        client=one_line(instance.endpoint.client or "", 64),
        version=one_line(instance.agent_version, 20),
        session=newest.id if newest else "",
        title=one_line(newest.title, TITLE_LENGTH) if newest else "",
        agent=one_line(newest.agent, 40) if newest else "",
        waits_for=waits_for,
        since=instance.offline_since or 0,
        remote=_limited(instance.rights),
    )


def _limited(rights: frozenset[str] | None) -> list[str]:
    """Return what may be done from afar where that is not what every machine allows by default, or more."""
    if rights is None or rights >= BY_DEFAULT:
        return []
    return sorted(one_line(right, 20) for right in rights)


def fitting(lines: list[str]) -> int:
    """Return how many of the lines one listing takes."""
    length = 0
    for count, line in enumerate(lines[:MAX_ROWS]):
        length += len(line) + 1
        if length > MAX_LISTING:
            return count
    return min(len(lines), MAX_ROWS)


def instances_text(lines: list[str], result: InstancesResult, absence: str) -> str:
    """Return the listing, one short line for each instance; `absence` where there is none."""
    listing = fence("\n".join(lines)) if lines else absence
    if result.left_out:
        states = ", ".join(f"{count} {state}" for state, count in result.left_out.items())
        total = sum(result.left_out.values())
        listing += f"\n{total} more are left out ({states}); `read` and `send` reach each of them by its name"
    # The notes name files that anybody may have put there.
    notes = "\n".join(problem for problem in result.problems if problem != listing)
    return f"{listing}\nnotes:\n{fence(notes)}" if notes else listing


def _instance_line(row: InstanceRow) -> str:
    state = row.state
    if row.since:
        state += " since " + time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(row.since))
    if row.waits_for:
        state += f" ({row.waits_for})"
    parts = [f"{row.name}: {state}", row.directory, f"“{row.title}”" if row.title else "", row.session, row.client]
    if row.agent:
        parts.append(f"agent {row.agent}")
    if row.version:
        parts.append(f"v{row.version}")
    if row.remote:
        parts.append(f"from afar only: {', '.join(row.remote)}")
    return " · ".join(part for part in parts if part)


# -- turns ---------------------------------------------------------------------------------------------------------


def turn_result(instance: Instance, outcome: Outcome) -> TurnResult:
    """Return a turn's result, its text cut at its beginning: the end matters most."""
    hint = f"`read` session {outcome.session_id} with a larger max_chars for all of it"
    problem = one_line(outcome.problem, 500)
    return TurnResult(
        instance=instance.name,
        session=outcome.session_id,
        result=outcome.result,
        text=cut_head(clean(outcome.text), MAX_TEXT - OWN_WORDS - len(problem), hint),
        problem=problem,
        note=outcome.note,
        asks=[ask_row(instance, ask) for ask in outcome.asks],
    )


def turn_text(turn: TurnResult, asks: str) -> str:
    """Return a turn's result for the model: our words outside of the delimiters, the instance's inside.

    `asks`: the text of those that it waits for.
    """
    where = f"instance {quote_name(turn.instance)}, session {turn.session}"
    said = [fence(turn.text)] if turn.text else []
    note = [f"Note: {turn.note}."] if turn.note else []
    match turn.result:
        case "done":
            lines = [f"{where}: done.", *(said or ["It ended without a text; `read` shows what it did."])]
        case "running":
            trouble = [f"Not all is well: {fence(turn.problem)}"] if turn.problem else []
            lines = [
                f"{where}: still working; it goes on by itself. So far:",
                *(said or ["(nothing yet)"]),
                *trouble,
                f"Pick it up with `read` (session {turn.session}); do not send the message again.",
            ]
        case "lost":
            lines = [
                f"{where}: nothing is heard of it any more: {fence(turn.problem)}",
                *said,
                f"Once it can be reached, `read` (session {turn.session}) shows what became of it.",
                "Do not send the message again.",
            ]
        case "failed":
            lines = [f"{where}: the turn failed.", fence(turn.problem), *said]
        case _:
            head = "it asks for permission" if turn.result == "needs-permission" else "it asks a question"
            lines = [f"{where}: {head} and waits.", *said, asks]
    return "\n".join([*lines, *note])


# -- conversations ---------------------------------------------------------------------------------------------------


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
