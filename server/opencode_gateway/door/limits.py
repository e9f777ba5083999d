"""What one login may take of the gateway at once: how large a call may be, and how many may run.

JSON takes up to fifty times its size in memory: a few large calls of one person could end the service for all.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.transport_security import RequestBodyLimitMiddleware
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

CALL_BYTES: Final = 256 * 1024
"""Of one request to `/mcp`. The longest message of `send` fits in, in ASCII."""
CALLS: Final = 16
"""Requests of one login that are being answered at the same time."""
LARGE_BYTES: Final = 32 * 1024
"""A request above it, or of a length that is not said, is a large one: those are what the memory holds few of."""
LARGE_CALLS: Final = 8
"""Large ones of one login."""
ALL_LARGE_CALLS: Final = 16
"""And of all together, which take some 230 MB."""


class CallLimits:
    """ASGI middleware, to stand behind what sets `scope["user"]`.

    A request without a good token passes: it is refused further in, before anything of its body is read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._limited = RequestBodyLimitMiddleware(app, CALL_BYTES)
        self._running: Counter[str] = Counter()
        self._large: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413 or 429."""
        user = scope.get("user")
        if scope["type"] != "http" or not isinstance(user, AuthenticatedUser):
            await self._app(scope, receive, send)
            return
        login = user.access_token.subject or user.access_token.client_id
        large = _is_large(scope)
        told = self._refusal(login) or (self._refusal_of_large(login) if large else None)
        if told is not None:
            await PlainTextResponse(told, 429, {"Retry-After": "5"})(scope, receive, send)
            return
        counts = (self._running, self._large) if large else (self._running,)
        for count in counts:
            count[login] += 1
        try:
            await self._limited(scope, receive, send)
        finally:
            for count in counts:
                count[login] -= 1
                if not count[login]:
                    del count[login]

    def _refusal(self, login: str) -> str | None:
        if self._running[login] < CALLS:
            return None
        return f"{CALLS} calls of yours are running; wait for one of them\n"

    def _refusal_of_large(self, login: str) -> str | None:
        if self._large[login] < LARGE_CALLS and self._large.total() < ALL_LARGE_CALLS:
            return None
        return "too many large calls are running; wait for one of them\n"


def _is_large(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or int(headers.get("content-length", 0)) > LARGE_BYTES
