"""The tool `inbox`."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated

from mcp_types import CallToolResult

from opencode_mcp.face import Face
from opencode_mcp.place import Place
from opencode_mcp.tool import Tool, answered, optional_text
from opencode_mcp.views.inbox import MAX_ASKS, MAX_ENDS, InboxResult, InboxView
from opencode_mcp.views.messages import MAX_MESSAGES, message_rows, messages_head, messages_text
from opencode_mcp.views.shares import counted, in_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.inbox import Waiting
    from opencode_fleet.outbox import KeptMessage
    from opencode_journal.entries import Entry

LAST_ENDS = 5
"""What ended that is told without a cursor."""

Cursor = Annotated[str | None, optional_text("as the last result gave it; tells only what is new since")]


async def inbox(face: Face, cursor: Cursor = None) -> Annotated[CallToolResult, InboxResult]:
    """List what needs the person on all instances, and what ended or failed since `cursor`."""
    if cursor is None or not cursor.strip():
        waiting = await face.inbox.waiting()
        place = Place(face.journal.cursor())
        ends, is_all = face.inbox.latest_ends(LAST_ENDS), True
    else:
        place = Place.parse(cursor)
        waiting = await face.inbox.waiting()
        news = face.inbox.ends(place.told, MAX_ENDS)
        ends, is_all, place = news.ends, news.is_all, Place(news.cursor)
    turns = in_turns([each.machine for each in waiting])
    kept = [waiting[index] for index in sorted(turns[:MAX_ASKS])]
    others = [waiting[index] for index in turns[MAX_ASKS:]]
    how = "`reply` without `ask` lists those of one instance"
    messages = face.outbox.messages()
    return listed(face, kept, ends, place, is_all=is_all, others=others, how=how, messages=messages)


def listed(
    face: Face,
    waiting: Sequence[Waiting],
    ends: Sequence[Entry],
    place: Place,
    *,
    is_all: bool,
    nothing: str = "",
    others: Sequence[Waiting] = (),
    how: str = "`wait` with the cursor lists them",
    messages: Sequence[KeptMessage] = (),
) -> CallToolResult:
    """Return what waits and what ended; `nothing` is said where that is nothing, `is_all` if no more ended.

    `others`: what waits too, and is counted alone. `how`: what lists it.
    """
    now = time.time()
    view = InboxView(face.handles, face.shown, now, face.caller.login)
    asks = list(zip(waiting, view.waiting_rows(waiting), strict=True))
    ended = list(zip(ends, view.end_rows(ends), strict=True))
    result = InboxResult.model_construct(
        asks=[row for _, row in asks],
        ended=[row for _, row in ended],
        cursor=str(place),
        left_out=len(others),
        more=not is_all,
        problem=face.problem,
        messages=message_rows(messages[:MAX_MESSAGES], face.handles),
    )
    lines = []
    if asks:
        count = len(asks) + len(others)
        lines += [
            f"{count} {'asks need' if count > 1 else 'ask needs'} the person:",
            view.asks_text(asks),
        ]
    if others:
        whose = counted(each.instance for each in others)
        lines.append(f"{len(others)} more asks wait (of {whose}); {how}.")
    if ended:
        lines += ["Over:", view.ends_text(ended)]
    if result.more:
        lines.append("More is over; the next call tells of it.")
    if result.messages:
        lines += [
            f"{messages_head(Counter(message.step for message in messages))}:",
            messages_text(result.messages, len(messages) - len(result.messages), now),
        ]
    if not asks and not ended:
        lines.append(nothing or "Nothing needs the person, and nothing ended.")
    if result.problem:
        lines.append(f"Note: {result.problem}.")
    lines.append(f"Cursor: {place}")
    return answered("\n".join(lines), result)


TOOL = Tool(inbox, "What needs you", is_read_only=True)
