"""What the tools show: rows for programs and short text for the model and the person. All text comes out cleaned."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict

from opencode_common.text import bare, clean, cut_head, cut_tail, fence, one_line, quote_name
from opencode_fleet.state import short_argument
from opencode_fleet.wire import MAX_ASK_SHOWN, Ask, Message, Part, Permission, Question

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.turn import Outcome

MAX_TEXT = 12_000
"""Characters of one answer, unless asked otherwise: what a chat's model can well take in."""
OWN_WORDS = 600
"""Of these, what is kept for our own words around the instance's."""
MAX_ROWS = 200
MAX_LISTING = 20_000
"""Instances and characters of one listing, whatever registers."""
DIRECTORY_LENGTH = 120
TITLE_LENGTH = 60
ARGUMENT_LENGTH = 160


def _without_titles(schema: dict[str, Any]) -> None:
    """Leave out what repeats the field names: the schemas stand in every chat's context."""
    schema.pop("title", None)
    schema.pop("description", None)
    for field in schema["properties"].values():
        field.pop("title", None)
        field.pop("default", None)


class Row(BaseModel):
    """Base of structured results."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_without_titles)


class InstanceRow(Row):
    """One instance. `since`: epoch seconds when it went offline."""

    name: str
    state: str
    directory: str
    hostname: str
    client: str = ""
    version: str = ""
    session: str = ""
    title: str = ""
    waits_for: str = ""
    since: float = 0


class InstancesResult(Row):
    """The fleet. `left_out`: how many more there are, by state."""

    instances: list[InstanceRow]
    left_out: dict[str, int] = {}
    problems: list[str] = []


class AskRow(Row):
    """What an agent waits for, whole."""

    id: str
    kind: Literal["permission", "question"]
    session: str
    text: str


class TurnResult(Row):
    """How a turn stands."""

    instance: str
    session: str
    result: str
    text: str = ""
    problem: str = ""
    asks: list[AskRow] = []


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
    messages: list[MessageRow]
    asks: list[AskRow] = []


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
        more = f" (+{len(asks) - 1} more)" if len(asks) > 1 else ""
        waits_for = one_line(_gist(asks[0]), ARGUMENT_LENGTH) + more
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
        version=one_line(state.version, 20),
        session=newest.id if newest else "",
        title=one_line(newest.title, TITLE_LENGTH) if newest else "",
        waits_for=waits_for,
        since=instance.offline_since or 0,
    )


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
    parts = [f"{row.name}: {state}", row.directory, f"“{row.title}”" if row.title else "", row.client]
    if row.version:
        parts.append(f"v{row.version}")
    return " · ".join(part for part in parts if part)


# -- asks ----------------------------------------------------------------------------------------------------------


def ask_row(instance: Instance, ask: Ask) -> AskRow:
    """Return an ask with the whole of what would run or change: nobody can approve what was cut."""
    root = instance.state.root_of(ask.session_id)
    if ask.size > MAX_ASK_SHOWN:
        text = f"[{ask.size:,} characters, too large to show whole: reject it, or settle it on the machine itself]"
    else:
        text = _permission_text(ask) if isinstance(ask, Permission) else _question_text(ask)
    if root != ask.session_id:
        text = f"(asked by a subagent, {ask.session_id})\n{text}"
    kind: Literal["permission", "question"] = "permission" if isinstance(ask, Permission) else "question"
    return AskRow(id=ask.id, kind=kind, session=root, text=clean(text))


def _permission_text(ask: Permission) -> str:
    lines = [f"permission: {_indented(ask.permission)}", *(f"for: {_indented(pattern)}" for pattern in ask.patterns)]
    for key, value in ask.metadata.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if shown and shown not in ask.patterns:
            lines.append(f"{_indented(key)}: {_indented(shown)}")
    covers = _indented(", ".join(ask.always)) if ask.always else "nothing more than this"
    lines.append(f"`always` would also allow, until that OpenCode ends: {covers}")
    return "\n".join(lines)


def _indented(value: str) -> str:
    """Set off the further lines of a value: at the beginning of a line stand only our own words."""
    return "\n    ".join(["", *value.splitlines()]) if "\n" in value else value


def _question_text(ask: Question) -> str:
    lines = []
    for number, item in enumerate(ask.questions, 1):
        several = " (several may be chosen, separated by commas)" if item.multiple else ""
        lines.append(f"question {number} of {len(ask.questions)}: {_indented(item.question)}{several}")
        lines += [_indented(f"- {option.label}: {option.description}").removesuffix(": ") for option in item.options]
    return "\n".join(lines)


def _gist(ask: Ask) -> str:
    if isinstance(ask, Permission):
        return f"{ask.permission} {' '.join(ask.patterns[:3])}"
    return ask.questions[0].question if ask.questions else "an answer"


def asks_text(asks: list[AskRow]) -> str:
    """Return the asks in full, with how to settle them."""
    blocks = [f"{ask.id} ({ask.kind}, session {ask.session})\n{ask.text}" for ask in asks]
    return (
        f"{fence(chr(10).join(blocks))}\n"
        "Show this to the person, and only on their word call `reply` with `ask` and `answer`: once, always or "
        "reject (also `reject: why`) for a permission; a label or text for a question, reject to decline."
    )


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
        asks=[ask_row(instance, ask) for ask in outcome.asks],
    )


def turn_text(turn: TurnResult) -> str:
    """Return a turn's result for the model: our words outside of the delimiters, the instance's inside."""
    where = f"instance {quote_name(turn.instance)}, session {turn.session}"
    said = [fence(turn.text)] if turn.text else []
    match turn.result:
        case "done":
            return "\n".join([f"{where}: done.", *(said or ["It ended without a text; `read` shows what it did."])])
        case "running":
            trouble = [f"Not all is well: {fence(turn.problem)}"] if turn.problem else []
            return "\n".join(
                [
                    f"{where}: still working; it goes on by itself. So far:",
                    *(said or ["(nothing yet)"]),
                    *trouble,
                    f"Pick it up with `read` (session {turn.session}); do not send the message again.",
                ]
            )
        case "failed":
            return "\n".join([f"{where}: the turn failed.", fence(turn.problem), *said])
        case _:
            head = "it asks for permission" if turn.result == "needs-permission" else "it asks a question"
            return "\n".join([f"{where}: {head} and waits.", *said, asks_text(turn.asks)])


# -- conversations ---------------------------------------------------------------------------------------------------


def message_rows(messages: list[Message], live: dict[str, str], max_chars: int) -> list[MessageRow]:
    """Return the messages, newest last, that fit an answer of `max_chars`: older ones are cut first, visibly."""
    rows: list[MessageRow] = []
    left = max_chars - OWN_WORDS
    for index, message in enumerate(reversed(messages)):
        text = _message_text(message, live)
        if not text:
            continue
        if left <= 0:
            note = f"[{len(messages) - index} older messages cut; ask for a larger max_chars]"
            rows.append(MessageRow(role="note", text=note))
            break
        role = message.info.role if message.info.role in {"user", "assistant"} else "other"
        rows.append(MessageRow(role=role, text=cut_tail(text, left, "ask for a larger max_chars")))
        left -= len(text) + len(f"{role}: \n\n")
    return rows[::-1]


def _message_text(message: Message, live: dict[str, str]) -> str:
    lines = [line for part in message.parts if (line := _part_text(part, live))]
    if message.info.error is not None:
        lines.append(f"[error] {one_line(message.info.error.describe(), 500)}")
    return "\n".join(lines)


def _part_text(part: Part, live: dict[str, str]) -> str:
    if part.type == "text" and not part.synthetic:
        streaming = not part.text and part.id in live
        text = clean(part.text or live.get(part.id, ""))
        return f"{text} [… being written]" if streaming and text else text
    if part.type == "tool":
        line = f"[{one_line(part.tool, 40)}: {one_line(part.state.status, 20)}]"
        line += f" {one_line(short_argument(part), ARGUMENT_LENGTH)}"
        if part.state.status == "error":
            line += f" — {one_line(part.state.error, 300)}"
        return line
    if part.type == "file":
        return f"[file] {one_line(part.filename, ARGUMENT_LENGTH)}"
    return ""


def read_text(read: ReadResult) -> str:
    """Return a conversation for the model."""
    head = f"instance {quote_name(read.instance)}, session {read.session}, {read.state}:"
    blocks = [f"{row.role}: {row.text}" for row in read.messages]
    text = "\n".join([head, fence("\n\n".join([f"“{read.title}”", *blocks]))])
    return f"{text}\nIt waits:\n{asks_text(read.asks)}" if read.asks else text
