"""Who may call what: FastMCP middleware over the capabilities of the caller's token.

Only the configuration's map of tools counts, never what a server says of its tools. Whatever is no tool (prompts,
resources) is in no capability, so the gateway serves none, see `proxy.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastmcp.server.dependencies import get_access_token
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext

from opencode_gateway.calls.errors import Denied
from opencode_gateway.capabilities import Capability, permitted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastmcp.tools.base import Tool, ToolResult
    from mcp_types import CallToolRequestParams, ListToolsRequest


class Permissions(Middleware):
    """Shows a caller the tools that it may use, and refuses calls of others."""

    def __init__(self, tools: Mapping[Capability, Sequence[str]]) -> None:
        self._tools = tools

    async def on_list_tools(
        self, context: MiddlewareContext[ListToolsRequest], call_next: CallNext[ListToolsRequest, Sequence[Tool]]
    ) -> Sequence[Tool]:
        """Leave out what the caller may not use."""
        allowed = self._allowed()
        return [tool for tool in await call_next(context) if tool.name in allowed]

    async def on_call_tool(
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        """Refuse a tool that the caller may not use.

        Raises:
            Denied: says what it would need.
        """
        name = context.message.name
        if name not in self._allowed():
            raise Denied(self._reason(name))
        return await call_next(context)

    def _allowed(self) -> frozenset[str]:
        token = get_access_token()
        return permitted(self._tools, token.scopes if token else ())

    def _reason(self, name: str) -> str:
        needed = [capability for capability, names in self._tools.items() if name in names]
        if not needed:
            return f"{name[:100]!r} is no tool that this gateway serves; nothing was done"
        return (
            f"{name!r} needs the capability {' or '.join(needed)}, which this login does not have; nothing was done"
        )
