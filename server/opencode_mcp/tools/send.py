"""The tool `send`."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import Field

from opencode_fleet.errors import Refused
from opencode_fleet.fleet import Fleet
from opencode_mcp.face import Face
from opencode_mcp.tool import InstanceName, Tool, answered, optional_text, progress
from opencode_mcp.views.turns import TurnResult, stopped, turned

MAX_MESSAGE = 200_000


async def send(
    face: Face,
    ctx: Context[Fleet, Any],
    instance: InstanceName,
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = "",
    abort: Annotated[bool, Field(description="first stop what it runs; needs no message")] = False,
    session: Annotated[str | None, optional_text("id, handle, or 'new'; default: the current one")] = None,
) -> Annotated[CallToolResult, TurnResult]:
    """Send an instance's agent a message; wait for its answer, question or permission request."""
    if not message.strip() and not abort:
        raise Refused("`message` is empty; nothing was sent")
    target = await face.fleet.find_live(instance)
    wanted = face.handles.session_id(target, session)
    if abort:
        ended = await face.driver.stop(target, wanted)
        if not message.strip():
            return answered(*stopped(target, ended))
        wanted = wanted or ended
    outcome = await face.driver.send(target, message, wanted, progress(ctx))
    return answered(*turned(target, outcome, face.shown))


TOOL = Tool(send, "Send a task")
