"""The tool `read`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import Field

from opencode_common.text import one_line
from opencode_fleet.errors import Refused, Unreachable, Unresponsive
from opencode_fleet.fleet import Fleet
from opencode_fleet.message_pages import MessagePage, newest_page, page_before, with_details
from opencode_mcp.face import Face
from opencode_mcp.tool import InstanceName, Tool, answered, optional_text
from opencode_mcp.views.conversations import (
    ReadResult,
    message_rows,
    read_text,
    session_manner,
    session_problem,
)
from opencode_mcp.views.last_seen import last_seen
from opencode_mcp.views.rows import MAX_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from opencode_fleet.instance import Instance

PROGRESS_INTERVAL = 2.0
"""Seconds between two words of how much of a conversation came."""


async def read(
    face: Face,
    ctx: Context[Fleet, Any],
    instance: InstanceName,
    message_limit: Annotated[int, Field(ge=1, le=200)] = 10,
    session: Annotated[str | None, optional_text("id or handle; default: the current one")] = None,
    max_chars: Annotated[int, Field(ge=1_000, le=200_000)] = MAX_TEXT,
    before: Annotated[str | None, optional_text("a result's `older`"), Field(max_length=100)] = None,
    details: Annotated[bool, Field(description="with diffs and more of tools' outputs")] = False,
) -> Annotated[CallToolResult, ReadResult]:
    """Show the last messages of an instance's conversation, with tool calls and what streams now."""
    cursor = (before or "").strip()
    try:
        target = await face.fleet.find_live(instance)
    except (Unreachable, Unresponsive):
        away = await face.fleet.find(instance)
        result = last_seen(away, face.handles.session_id(away, session), max_chars, face.shown)
        if result is None:
            raise
        return answered(read_text(result, ""), result)
    found = await face.driver.sessions.to_read(target, face.handles.session_id(target, session))
    if found is None:
        raise Refused(f"{target.quoted} has no session yet; `send` starts one")
    page = await _fetched(ctx, target, found.id, message_limit, cursor)
    messages = await with_details(target.agent, found.id, page.messages) if details else page.messages
    state = target.state
    busy = state.is_busy(found.id) or state.family_busy(found.id)
    status = state.statuses.get(found.id)
    retries = status is not None and status.kind == "retry"
    agent, model = session_manner(found, messages)
    pick_up = f"`send` with session {found.id} goes on with it, as “continue”"
    # Of a root session its subagents' asks too.
    asks = [ask for ask in state.pending_asks() if found.id in {ask.session_id, state.root_of(ask.session_id)}]
    problem = session_problem(messages, busy=busy or bool(cursor), pick_up=pick_up)
    rows = message_rows(messages, state.live(found.id).parts, max_chars, busy=busy, details=details)
    result = ReadResult(
        instance=target.name,
        session=found.id,
        title=one_line(found.title, 200),
        state="retry" if retries else "busy" if busy else "idle",
        agent=agent,
        model=model,
        problem=one_line(status.describe(), 300)
        if status is not None and retries
        else "; ".join(filter(None, (problem, face.driver.unknown(target, found.id)))),
        messages=rows,
        older=_older(page, [row.id for row in rows if row.id]),
        asks=face.shown.rows(target, asks),
    )
    return answered(read_text(result, face.shown.text(target, asks) if asks else ""), result)


def _older(page: MessagePage, shown: list[str]) -> str:
    """Return what leads to the messages before those shown; empty where there are none."""
    is_cut = bool(shown) and shown[0] != page.messages[0].id
    return shown[0] if shown and (is_cut or page.has_older) else ""


async def _fetched(
    ctx: Context[Fleet, Any], target: Instance, session_id: str, limit: int, before: str
) -> MessagePage:
    """Return a page of messages; while that takes long, say how much of them came."""
    came = 0

    def arrived(size: int) -> None:
        nonlocal came
        came += size

    fetching = asyncio.create_task(_page(target, session_id, limit, before, arrived))
    try:
        while not (await asyncio.wait({fetching}, timeout=PROGRESS_INTERVAL))[0]:
            await ctx.report_progress(came, message=f"{came / 1000:.0f} kB of the conversation came so far")
        return await fetching
    finally:
        fetching.cancel()


def _page(
    target: Instance, session_id: str, limit: int, before: str, arrived: Callable[[int], None]
) -> Coroutine[Any, Any, MessagePage]:
    if before:
        return page_before(target.agent, session_id, before, limit, arrived)
    return newest_page(target.agent, session_id, limit, arrived)


TOOL = Tool(read, "Read a conversation", is_read_only=True)
