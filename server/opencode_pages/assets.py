"""Files that pages refer to: the same for everybody, under an address that changes with them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

STYLE_PATH: Final = "/pages.css"
_STATIC: Final = Path(__file__).with_name("static")
_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_CONTENT: Final = {f"/{path.name}": path.read_bytes() for path in sorted(_STATIC.iterdir()) if path.suffix in _TYPES}
_HEADERS: Final = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


def address(path: str) -> str:
    """Return the address of a file, of which a browser keeps what it got."""
    return f"{path}?{hashlib.sha256(_CONTENT[path]).hexdigest()[:16]}"


async def asset(request: Request) -> Response:
    """Answer with the file of the request's path."""
    path = request.url.path
    return Response(_CONTENT[path], media_type=_TYPES[Path(path).suffix], headers=_HEADERS)


def routes() -> list[Route]:
    """Return the routes of all of them, the stylesheet's too."""
    return [Route(path, asset, methods=["GET"]) for path in _CONTENT]
