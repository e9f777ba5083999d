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
WORKER_PATH: Final = "/worker.js"
"""The service worker's: at the root, so that all pages are in its scope."""
_STATIC: Final = Path(__file__).with_name("static")
_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_CONTENT: Final = {f"/{path.name}": path.read_bytes() for path in sorted(_STATIC.iterdir()) if path.suffix in _TYPES}
_MARKS: Final = {path: hashlib.sha256(content).hexdigest()[:16] for path, content in _CONTENT.items()}
_FOR_EVER: Final = "public, max-age=31536000, immutable"
# A service worker lives under the policy that it came with.
_POLICY: Final = "default-src 'none'; connect-src 'self'; frame-ancestors 'none'"


def address(path: str) -> str:
    """Return the address of a file, of which a browser keeps what it got."""
    return f"{path}?{_MARKS[path]}"


async def asset(request: Request) -> Response:
    """Answer with the file of the request's path."""
    path = request.url.path
    headers = {
        "Cache-Control": _FOR_EVER if request.url.query == _MARKS[path] else "no-cache",
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
    }
    return Response(_CONTENT[path], media_type=_TYPES[Path(path).suffix], headers=headers)


def routes() -> list[Route]:
    """Return the routes of all of them, the stylesheet's too."""
    return [Route(path, asset, methods=["GET"]) for path in _CONTENT]
