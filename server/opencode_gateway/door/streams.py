"""Streams of events, which never end by themselves: they end with the service, and leave connections to others.

How many of them one person may have is the pages' own affair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from starlette.responses import PlainTextResponse

from opencode_gateway.calls.ending import ending_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

STREAMS: Final = 128
"""At once, of all people: a quarter of the connections that the service takes."""


class StreamEnds:
    """ASGI middleware for requests of `path`, which streams."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path = path
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and end its answer when the service is about to end; or answer 503."""
        if scope["type"] != "http" or scope["path"] != self._path:
            await self._app(scope, receive, send)
            return
        if self._running >= STREAMS:
            await PlainTextResponse("Too many streams are open\n", 503, {"Retry-After": "30"})(scope, receive, send)
            return
        began = ended = False

        async def noted(message: Message) -> None:
            nonlocal began, ended
            began = True
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        self._running += 1
        try:
            with anyio.CancelScope() as stream, ending_of(scope).cuts_stream(stream):
                await self._app(scope, receive, noted)
        finally:
            self._running -= 1
        if not stream.cancelled_caught:
            return
        if began and not ended:
            # Whole, so that the browser does not take it for a fault of the line.
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif not began:
            await PlainTextResponse("The gateway is being restarted\n", 503)(scope, receive, send)
