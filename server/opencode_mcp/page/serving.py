"""Serves the pages on loopback until Ctrl-C."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from opencode_mcp.copies import Copy
from opencode_mcp.page.door import LocalDoor
from opencode_mcp.page.source import FaceSource
from opencode_pages.routes import routes

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from opencode_fleet.settings import Settings
    from opencode_fleet.transports.base import Transport
    from opencode_mcp.face import Face

_LOOPBACK: Final = "127.0.0.1"
_MAX_CONNECTIONS: Final = 64
_STREAMS_END_WITHIN: Final = 1
"""Seconds: what a browser still listens to is cut then."""


class OnlyHere:
    """Answers only who names us by our own address: a web page under another name leads to us, too."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and Headers(scope=scope).getlist("host") != [self._host]:
            await PlainTextResponse(f"This is http://{self._host} alone.", 421)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def application(face: Face, host: str) -> tuple[LocalDoor, ASGIApp]:
    """Return the pages over a face, for who names us by `host`, and the door that they are behind."""
    door = LocalDoor(f"http://{host}")
    app = Starlette(routes=[*door.routes(), *routes(FaceSource(face), door)])
    return door, OnlyHere(app, host)


async def serve(settings: Settings, transport: Transport) -> None:
    """Serve the pages on a free port of this machine, print the link that leads in, and return at a signal."""
    copy = Copy(settings, transport)
    with socket.socket() as listening:
        listening.bind((_LOOPBACK, 0))
        host = f"{_LOOPBACK}:{listening.getsockname()[1]}"
        door, app = application(copy.face, host)
        config = uvicorn.Config(
            app,
            access_log=False,
            lifespan="off",
            limit_concurrency=_MAX_CONNECTIONS,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_STREAMS_END_WITHIN,
        )
        async with copy.running():
            # Whoever reads the link may open it at once: the port listens from here on.
            listening.listen()
            print(
                f"What needs you: {door.link}\nThe link works once, in a browser on this machine. Ctrl-C ends it.",
                flush=True,
            )
            await uvicorn.Server(config).serve(sockets=[listening])
