"""What the bare address says to whoever comes without `/mcp`: to people, programs, browsers and robots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from opencode_gateway.pages.rendering import page

if TYPE_CHECKING:
    from starlette.requests import Request

_ROBOTS: Final = "User-agent: *\nDisallow: /\n"
_NO_INDEX: Final = {"X-Robots-Tag": "noindex"}
_INVALID_REQUEST: Final = -32600
"""Of JSON-RPC."""


def routes(resource: str, inbox: str | None = None) -> list[Route]:
    """Return the routes.

    Args:
        resource: the URL that people paste into their chat client.
        inbox: the path of the page on which they see what needs them; None: there is none.
    """
    landing = _Landing(resource, inbox)
    return [
        Route("/", landing.show, methods=["GET", "HEAD"]),
        Route("/", landing.point, methods=["POST", "DELETE"]),
        Route("/favicon.ico", _no_icon, methods=["GET", "HEAD"]),
        Route("/robots.txt", _robots, methods=["GET", "HEAD"]),
    ]


class _Landing:
    def __init__(self, resource: str, inbox: str | None) -> None:
        self._resource = resource
        self._inbox = inbox
        self._told = f"MCP is served at {resource}: give your client that URL"

    async def show(self, request: Request) -> Response:
        """Answer a person with a page, and a program with a pointer."""
        accepted = request.headers.get("accept", "")
        if "text/html" in accepted:
            return page("landing.html", {"resource": self._resource, "inbox": self._inbox})
        # A client that opens a stream takes this address for that of MCP.
        status = 404 if "text/event-stream" in accepted else 200
        pointer = {"name": "opencode-relay", "mcp": self._resource, "message": self._told}
        return JSONResponse(pointer, status, headers=_NO_INDEX)

    async def point(self, _request: Request) -> Response:
        """Answer a message of MCP. A redirect would lose its body with some clients, and its token with others."""
        error = {"code": _INVALID_REQUEST, "message": self._told, "data": {"mcp": self._resource}}
        return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, 404, headers=_NO_INDEX)


async def _no_icon(_request: Request) -> Response:
    return Response(status_code=204, headers={"Cache-Control": "public, max-age=86400"})


async def _robots(_request: Request) -> Response:
    return PlainTextResponse(_ROBOTS, headers={"Cache-Control": "public, max-age=86400"})
