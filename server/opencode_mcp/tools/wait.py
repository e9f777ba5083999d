"""The tool `wait`."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from mcp_types import CallToolResult
from pydantic import Field

from opencode_mcp.face import Face
from opencode_mcp.place import Place, Rank, mark_of
from opencode_mcp.tool import Tool
from opencode_mcp.tools.inbox import Cursor, listed
from opencode_mcp.views.inbox import MAX_ASKS, MAX_ENDS, WaitResult
from opencode_mcp.views.shares import in_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.inbox import Waiting

LONGEST = 40
"""Seconds: chat clients and the gateway end a call after 45, and an answer must be on its way before."""
_NOT_YET = "So much has happened since the cursor that it is not looked through yet: `wait` again with the new one."


async def wait(
    face: Face,
    cursor: Cursor = None,
    seconds: Annotated[int, Field(ge=1, le=LONGEST)] = LONGEST,
    instances: Annotated[list[str], Field(description="only these; default: all", max_length=50)] = [],  # noqa: B006 - never changed
) -> Annotated[CallToolResult, WaitResult]:
    """Wait until something needs the person, or ends or fails, after `cursor`; without one, from now on."""
    # A caller whose calls end earlier has said so for `send`.
    until = time.monotonic() + min(seconds, face.call_seconds)
    names = {(await face.fleet.find(name)).name for name in instances}
    mark = mark_of(names)
    only = names.__contains__ if names else None
    if cursor is None or not cursor.strip():
        # Before it is asked what waits: what comes meanwhile may be told twice, but is not lost.
        place = Place(face.journal.cursor())
        found = await face.inbox.waiting()
        waiting = [each for each in found if only is None or only(each.instance)]
        place = place.after(mark, place.told)
        if waiting:
            return _part(face, waiting, in_turns([each.machine for each in waiting]), place)
    else:
        place = Place.parse(cursor)
        if place.rest is not None:
            face.inbox.ends(place.told, 1)  # a cursor that is none here says so now
            found = await face.inbox.waiting()
            waiting = [
                each for each in found if (only is None or only(each.instance)) and Rank.of(each) >= place.rest
            ]
            if waiting:
                return _part(face, sorted(waiting, key=Rank.of), range(len(waiting)), place)
    while True:
        news = await face.inbox.news(place.start(mark), MAX_ENDS, only, until=until)
        place = place.after(mark, news.cursor)
        if news.asks or news.ends:
            return listed(face, news.asks, news.ends, place, is_all=news.is_all)
        left = until - time.monotonic()
        if left <= 0:
            nothing = _nothing(face, seconds, names) if news.is_all else _NOT_YET
            return listed(face, [], [], place, is_all=True, nothing=nothing)
        if news.cursor != face.journal.cursor():
            continue  # something came while an agent was asked
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await face.journal.changed()


def _part(face: Face, waiting: Sequence[Waiting], order: Sequence[int], place: Place) -> CallToolResult:
    """Return as many asks as one answer lists, given in the `order` in which they have room, and where to go on."""
    shown = [waiting[index] for index in sorted(order[:MAX_ASKS])]
    others = [waiting[index] for index in order[MAX_ASKS:]]
    rest = min(map(Rank.of, others), default=None)
    return listed(face, shown, [], place._replace(rest=rest), is_all=True, others=others)


def _nothing(face: Face, seconds: int, names: set[str]) -> str:
    everyone = face.fleet.all_instances()
    busy = sum(
        bool(each.state.statuses) and each.connected.is_set() for each in everyone if not names or each.name in names
    )
    return (
        f"Nothing needs the person, and nothing ended, within {seconds} s; {busy} busy. `wait` again with the cursor."
    )


TOOL = Tool(wait, "Wait for something", is_read_only=True)
