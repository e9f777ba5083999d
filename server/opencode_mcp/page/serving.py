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
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from opencode_fleet.settings import ServerSettings
    from opencode_fleet.transports.base import Transport

_LOOPBACK: Final = "127.0.0.1"
_MAX_CONNECTIONS: Final = 64
_ENDS_WITHIN: Final = 3
"""Seconds: what is still answered then is cut."""


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


class _Server(uvicorn.Server):
    """A server that first ends what browsers listen to: they would keep it from ending."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        self._end_streams()
        await super().shutdown(sockets)


def application(source: FaceSource, door: LocalDoor, host: str) -> ASGIApp:
    """Return the pages behind a door, for who names us by `host`."""
    return OnlyHere(Starlette(routes=[*door.routes(), *routes(source, door)]), host)


async def serve(settings: ServerSettings, transport: Transport) -> None:
    """Serve the pages on a free port of this machine, print the link that leads in, and return at a signal."""
    copy = Copy(settings, transport)
    with socket.socket() as listening:
        listening.bind((_LOOPBACK, 0))
        host = f"{_LOOPBACK}:{listening.getsockname()[1]}"
        source, door = FaceSource(copy.face), LocalDoor(f"http://{host}")
        config = uvicorn.Config(
            application(source, door, host),
            access_log=False,
            lifespan="off",
            limit_concurrency=_MAX_CONNECTIONS,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_ENDS_WITHIN,
        )
        async with copy.running():
            # Whoever reads the link may open it at once: the port listens from here on.
            listening.listen()
            print(
                f"What needs you: {door.link}\nThe link works once, in a browser on this machine. Ctrl-C ends it.",
                flush=True,
            )
            await _Server(config, source.close).serve(sockets=[listening])
