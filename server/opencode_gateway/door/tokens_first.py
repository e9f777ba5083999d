"""`/mcp` asked by other methods than those it has: who has no token is told so first.

Some clients try `GET` before anything else, and learn from its 401 where they log in. A 405 would say nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from starlette.responses import Response

from opencode_gateway.configuration import MCP_PATH

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS: Final = frozenset({"POST", "DELETE"})
"""Of the stateless transport, which has no stream to open."""


class TokensFirst:
    """ASGI middleware, to stand behind what sets `scope["user"]`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["path"] != MCP_PATH or scope["method"] in _METHODS:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={"Allow": "POST, DELETE, OPTIONS"})(scope, receive, send)
        elif isinstance(scope.get("user"), AuthenticatedUser):
            await self._app(scope, receive, send)
        else:
            # Answered before anything of it is read.
            await self._app({**scope, "method": "POST"}, receive, send)
