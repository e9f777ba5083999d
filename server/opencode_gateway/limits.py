"""What one login may take of the gateway at once: how large a call may be, and how many may run.

JSON takes up to fifty times its size in memory: a few large calls of one person could end the service for all.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.transport_security import RequestBodyLimitMiddleware
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

CALL_BYTES: Final = 256 * 1024
"""Of one request to `/mcp`. The longest message of `send` fits in, in ASCII."""
CALLS: Final = 16
"""Requests of one login that are being answered at the same time."""


class CallLimits:
    """ASGI middleware, to stand behind what sets `scope["user"]`.

    A request without a good token passes: it is refused further in, before anything of its body is read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._limited = RequestBodyLimitMiddleware(app, CALL_BYTES)
        self._running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413 or 429."""
        user = scope.get("user")
        if scope["type"] != "http" or not isinstance(user, AuthenticatedUser):
            await self._app(scope, receive, send)
            return
        login = user.access_token.subject or user.access_token.client_id
        if self._running[login] >= CALLS:
            told = PlainTextResponse(
                f"{CALLS} calls of yours are running; wait for one of them\n", 429, {"Retry-After": "5"}
            )
            await told(scope, receive, send)
            return
        self._running[login] += 1
        try:
            await self._limited(scope, receive, send)
        finally:
            self._running[login] -= 1
            if not self._running[login]:
                del self._running[login]
