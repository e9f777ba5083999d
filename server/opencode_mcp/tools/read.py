"""The tool `read`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import Field

from opencode_common.text import one_line
from opencode_fleet.errors import Refused
from opencode_fleet.fleet import Fleet
from opencode_mcp.face import Face
from opencode_mcp.tool import InstanceName, Tool, answered, optional_text
from opencode_mcp.views.asks import ask_row
from opencode_mcp.views.conversations import (
    ReadResult,
    message_rows,
    read_text,
    session_manner,
    session_problem,
)
from opencode_mcp.views.rows import MAX_TEXT

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Message

PROGRESS_INTERVAL = 2.0
"""Seconds between two words of how much of a conversation came."""


async def read(
    face: Face,
    ctx: Context[Fleet, Any],
    instance: InstanceName,
    message_limit: Annotated[int, Field(ge=1, le=200)] = 10,
    session: Annotated[str | None, optional_text("id or handle; default: the current one")] = None,
    max_chars: Annotated[int, Field(ge=1_000, le=200_000)] = MAX_TEXT,
) -> Annotated[CallToolResult, ReadResult]:
    """Show the last messages of an instance's conversation, with tool calls and what streams now."""
    target = await face.fleet.find_live(instance)
    found = await face.driver.sessions.to_read(target, face.handles.session_id(target, session))
    if found is None:
        raise Refused(f"{target.quoted} has no session yet; `send` starts one")
    messages = await _fetched(ctx, target, found.id, message_limit)
    state = target.state
    busy = state.is_busy(found.id) or state.family_busy(found.id)
    status = state.statuses.get(found.id)
    retries = status is not None and status.kind == "retry"
    agent, model = session_manner(found, messages)
    pick_up = f"`send` with session {found.id} goes on with it, as “continue”"
    # Of a root session its subagents' asks too.
    asks = [ask for ask in state.pending_asks() if found.id in {ask.session_id, state.root_of(ask.session_id)}]
    result = ReadResult(
        instance=target.name,
        session=found.id,
        title=one_line(found.title, 200),
        state="retry" if retries else "busy" if busy else "idle",
        agent=agent,
        model=model,
        problem=one_line(status.describe(), 300)
        if status is not None and retries
        else session_problem(messages, busy=busy, pick_up=pick_up),
        messages=message_rows(messages, state.live(found.id).parts, max_chars, busy=busy),
        asks=[ask_row(target, ask) for ask in asks],
    )
    return answered(read_text(result, face.shown.text(target, asks) if asks else ""), result)


async def _fetched(ctx: Context[Fleet, Any], target: Instance, session_id: str, limit: int) -> list[Message]:
    """Return the newest messages; while that takes long, say how much of them came."""
    came = 0

    def arrived(size: int) -> None:
        nonlocal came
        came += size

    fetching = asyncio.create_task(target.agent.messages(session_id, limit, arrived=arrived))
    try:
        while not (await asyncio.wait({fetching}, timeout=PROGRESS_INTERVAL))[0]:
            await ctx.report_progress(came, message=f"{came / 1000:.0f} kB of the conversation came so far")
        return await fetching
    finally:
        fetching.cancel()


TOOL = Tool(read, "Read a conversation", is_read_only=True)
