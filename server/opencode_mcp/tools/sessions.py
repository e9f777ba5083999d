"""The tool `sessions`."""

from __future__ import annotations

from typing import Annotated

from mcp_types import CallToolResult
from pydantic import Field

from opencode_fleet.session_list import list_sessions
from opencode_mcp.face import Face
from opencode_mcp.tool import Tool, answered, optional_text
from opencode_mcp.views.sessions import SessionsResult, sessions_result, sessions_text


async def sessions(
    face: Face,
    instance: Annotated[str | None, optional_text("default: all"), Field(max_length=200)] = None,
    text: Annotated[str | None, optional_text("part of a title"), Field(max_length=200)] = None,
    limit: Annotated[int, Field(ge=1, le=100)] = 20,
) -> Annotated[CallToolResult, SessionsResult]:
    """List sessions, newest first, or find them by their titles."""
    wanted, title = (instance or "").strip(), (text or "").strip()
    asked = [await face.fleet.find(wanted)] if wanted else await face.fleet.instances()
    found = await list_sessions(asked, title, limit)
    result = sessions_result(found, face.handles)
    return answered(sessions_text(result, found, title) if asked else face.fleet.absence(), result)


TOOL = Tool(sessions, "List sessions", is_read_only=True)
