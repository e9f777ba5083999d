"""Tells a child who makes a call: `{"login": …, "may": [capabilities]}` in the call's `_meta`, under a key of ours.

A client could write it, too, so what it wrote is replaced. A child believes it only if its parent said at its start
that it says so: see `servers.Server.environment`. No other server hears who calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmcp.server.dependencies import get_access_token
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext

from opencode_gateway.calls.audited import Caller
from opencode_gateway.calls.errors import Denied
from opencode_gateway.capabilities import CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastmcp.tools.base import ToolResult
    from mcp_types import CallToolRequestParams

KEY: Final = "opencode-relay/caller"


class TellCallers(Middleware):
    """Puts the caller into each call on its way to a child that is told; `is_told` says it by the tool."""

    def __init__(self, is_told: Callable[[str], bool]) -> None:
        self._is_told = is_told

    async def on_call_tool(
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        """Say who calls, in place of what the client said.

        Raises:
            Denied: there is no request to say it in.
        """
        request = context.fastmcp_context.request_context if context.fastmcp_context else None
        if request is None:
            raise Denied("this call came outside of a request, so nothing was done")
        told = {KEY: _caller()} if self._is_told(context.message.name) else {}
        request.meta = {key: value for key, value in (request.meta or {}).items() if key != KEY} | told
        return await call_next(context)


def _caller() -> dict[str, object]:
    token, caller = get_access_token(), Caller.of_request()
    held = token.scopes if token else ()
    # A token of a machine may have the name of a person.
    login = f"token:{caller.login}" if caller.kind == "token" else caller.login
    return {"login": login, "may": [capability for capability in CAPABILITIES if capability in held]}
