"""The bodies of calls as they pass on: half a character, which some clients send, does not cost the whole call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_common.half_characters import mended
from opencode_gateway.configuration import MCP_PATH

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class MendedBody:
    """ASGI middleware, to stand behind what limits a body, since it holds one whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. Its body is read when the app asks for it, and not before."""
        # Of an upload the bytes count, and nobody has bounded them yet.
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != MCP_PATH:
            await self._app(scope, receive, send)
            return
        is_read = False

        async def whole() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            parts: list[bytes] = []
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return message
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    break
            is_read = True
            # As long as before, as its length was told.
            return {"type": "http.request", "body": mended(b"".join(parts)), "more_body": False}

        await self._app(scope, whole, send)
