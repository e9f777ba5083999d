"""What needs a person and what ended, over all instances: rows for programs, and a text to be read aloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import WithJsonSchema

from opencode_common.text import fence, one_line
from opencode_journal.entries import (
    INSTANCE_LOST,
    MESSAGE,
    MESSAGE_ANSWERED,
    MESSAGE_EXPIRED,
    MESSAGE_FAILED,
    STOPPED,
    TURN_FAILED,
)
from opencode_mcp.views.asks import GIST_LENGTH, gist
from opencode_mcp.views.digests import digest_of_waiting
from opencode_mcp.views.rows import Result, Row
from opencode_mcp.views.times import age_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.inbox import Waiting
    from opencode_journal.entries import Entry
    from opencode_mcp.handles import Handles
    from opencode_mcp.views.shown import Shown

MAX_ASKS: Final = 50
MAX_ENDS: Final = 50
MAX_LISTING: Final = 20_000
"""Asks, ends, and characters of asks in one answer, whatever registers."""
MESSAGE_ENDS: Final = {
    MESSAGE_ANSWERED: "was delivered, and is done",
    MESSAGE_FAILED: "failed",
    MESSAGE_EXPIRED: "has expired, and was not sent",
}
_RESULTS: Final = {
    INSTANCE_LOST: "away",
    TURN_FAILED: "failed",
    MESSAGE_FAILED: "failed",
    MESSAGE_EXPIRED: "expired",
}
_TITLE: Final = 60
_PROBLEM: Final = 200


class WaitingRow(Row):
    """What an agent waits for. `since`: epoch seconds. `away`: its machine is, so nothing can be settled now."""

    id: str
    handle: str
    kind: str
    instance: str
    session: str
    session_handle: str
    title: str = ""
    summary: str = ""
    since: float
    away: bool = False


class EndRow(Row):
    """What is over. `at`: epoch seconds.

    `result`: done, failed, stopped, expired, or away: nothing is heard of the machine. `title`: of a message that
    waited, its handle and beginning.
    """

    result: str
    instance: str
    session: str = ""
    session_handle: str = ""
    title: str = ""
    problem: str = ""
    at: float


class WaitResult(Result):
    """What needs the person, and what ended. `left_out`: asks that are not listed. `more`: more ended than is."""

    asks: list[WaitingRow]
    ended: list[EndRow]
    cursor: str
    left_out: int = 0
    more: bool = False
    problem: str = ""


class InboxResult(WaitResult):
    """The same, and the messages that wait."""

    messages: Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"type": "object"}})] = []
    """Each a `MessageRow`, whose fields its schema does not name: it stands in every chat's context."""


@dataclass(frozen=True, slots=True)
class InboxView:
    """Writes what waits and what ended; `now` is the time that ages count from, in epoch seconds."""

    handles: Handles
    shown: Shown
    now: float
    login: str
    """Of who reads it: a message that waited is theirs, or somebody else's."""

    def waiting_rows(self, asks: Sequence[Waiting]) -> list[WaitingRow]:
        """Return what programs get of asks."""
        self.handles.prepare_asks([(each.instance, each.id, digest_of_waiting(each)) for each in asks])
        self.handles.prepare("s", [(waiting.instance, waiting.root) for waiting in asks])
        return [self._waiting_row(waiting) for waiting in asks]

    def _waiting_row(self, waiting: Waiting) -> WaitingRow:
        return WaitingRow.model_construct(
            id=waiting.id,
            handle=self.handles.of_ask(waiting.instance, waiting.id, digest_of_waiting(waiting)),
            kind="question" if waiting.is_question else "permission",
            instance=waiting.instance,
            session=waiting.root,
            session_handle=self.handles.of_session(waiting.instance, waiting.root),
            title=one_line(waiting.title, _TITLE),
            summary=one_line(gist(waiting.ask) if waiting.ask else waiting.about, GIST_LENGTH),
            since=waiting.since,
            away=waiting.place is None,
        )

    def end_rows(self, ends: Sequence[Entry]) -> list[EndRow]:
        """Return what programs get of what ended."""
        self.handles.prepare("s", [(entry.instance, entry.session) for entry in ends if entry.session])
        return [self._end_row(entry) for entry in ends]

    def _end_row(self, entry: Entry) -> EndRow:
        is_away = entry.kind == INSTANCE_LOST
        message = f"{entry.data[MESSAGE]}: {entry.data.get('about', '')}" if entry.kind in MESSAGE_ENDS else ""
        problem = entry.data.get("why" if is_away else "problem") or (message and entry.data.get("note")) or ""
        return EndRow.model_construct(
            result="stopped" if entry.data.get(STOPPED) else _RESULTS.get(entry.kind, "done"),
            instance=entry.instance,
            session=entry.session,
            session_handle=self.handles.of_session(entry.instance, entry.session) if entry.session else "",
            title=one_line(message or str(entry.data.get("title", "")), _TITLE),
            problem=one_line(str(problem), _PROBLEM),
            at=entry.at,
        )

    def asks_text(self, asks: Sequence[tuple[Waiting, WaitingRow]]) -> str:
        """Return the asks, whole where they are short, and how they are settled."""
        blocks: list[str] = []
        parts: list[str] = []
        length = 0
        for waiting, row in asks:
            head = f"{row.handle} · {_where(row)} · {row.kind}, {age_text(self.now - row.since)}"
            if waiting.place is None or waiting.ask is None:
                why = "its machine is away" if row.away else "its machine does not answer just now"
                block = f"{head} · {why}\n{row.summary}"
            else:
                text, is_whole = self.shown.brief(waiting.place, waiting.ask, left=MAX_LISTING - length)
                block = f"{head}\n{text}"
                if not is_whole:
                    parts.append(row.handle)
            blocks.append(block)
            length += len(block)
        lines = [fence("\n".join(blocks))]
        if parts:
            lines.append(f"Not shown whole: {', '.join(parts)}. `reply` with `ask` and no `answer` lists all of one.")
        return "\n".join([*lines, self.shown.how_to_settle([row.handle for _, row in asks])])

    def ends_text(self, ends: Sequence[tuple[Entry, EndRow]]) -> str:
        """Return what ended, a line each."""
        return fence("\n".join(self._end_line(entry, row) for entry, row in ends))

    def _end_line(self, entry: Entry, row: EndRow) -> str:
        if row.result == "away":
            busy = entry.data.get("turns", 0)
            said = "nothing is heard of it any more" + (f", {busy} turns ran" if busy else "")
        elif entry.kind in MESSAGE_ENDS:
            said = f"{self._whose(entry)} {MESSAGE_ENDS[entry.kind]}"
        else:
            is_unseen = entry.data.get("unseen", False)
            said = "it no longer runs; how it ended was not seen, `read` tells" if is_unseen else row.result
        problem = f": {row.problem}" if row.problem else ""
        return f"{_where(row)} · {said}, {age_text(self.now - row.at)}{problem}"

    def _whose(self, entry: Entry) -> str:
        by = str(entry.data.get("by", ""))
        return "your message" if by == self.login else f"a message of {one_line(by, _TITLE)}"


def _where(row: WaitingRow | EndRow) -> str:
    title = f"“{row.title}”" if row.title else ""
    session = " ".join(part for part in (row.session_handle, title) if part)
    return " · ".join(part for part in (row.instance, session) if part)
