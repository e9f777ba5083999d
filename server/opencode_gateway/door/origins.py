"""Which web pages may speak to the gateway from a person's browser.

- What is found under `/.well-known` is public: pages of every origin may read it.
- Clients that are web pages reach the endpoints that programs use, from origins that the owner allows (CORS). They
  bring their own token: browsers are never asked for cookies with it.
- The pages on which people log in and consent take forms of their own origin alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse

from opencode_gateway.configuration import MCP_PATH
from opencode_gateway.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.types import ASGIApp, Receive, Scope, Send

ENDPOINTS: Final = frozenset({MCP_PATH, f"{MCP_PATH}/", "/register", "/token", "/revoke"})
"""What programs ask, and no person's browser with a cookie of ours."""
_PUBLIC: Final = ("/.well-known/", f"{MCP_PATH}/.well-known/")
_EXPOSED: Final = ("WWW-Authenticate", "Mcp-Session-Id", "MCP-Protocol-Version", "Retry-After")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str, int]
"""Scheme, host and port."""


class OriginGuard:
    """ASGI middleware: passes pages of its own origin, and those that are allowed where they may ask.

    Args:
        app: what is guarded.
        public_url: its own origin.
        allowed: returns the origins whose pages may be clients now, as browsers write them.
        on_refusal: hears of those that may not.
    """

    def __init__(
        self,
        app: ASGIApp,
        public_url: str,
        allowed: Callable[[], Collection[str]],
        on_refusal: Callable[[Refusal], None],
    ) -> None:
        self._app = app
        self._own = origin_of(public_url)
        self._allowed = allowed
        self._on_refusal = on_refusal
        self._public = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "HEAD", "OPTIONS"],
            allow_headers=["*"],
        )
        self._clients = _Allowed(
            app,
            allow_methods=["GET", "POST", "DELETE", "OPTIONS"],
            # A client of an allowed origin sends what it needs: tools can name headers of their own (Mcp-Param-…).
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        headers = Headers(scope=scope).getlist("origin") if scope["type"] == "http" else []
        if not headers:
            await self._app(scope, receive, send)
            return
        path, origin = scope["path"], origin_of(headers[0]) if len(headers) == 1 else None
        if path.startswith(_PUBLIC):
            await self._public(scope, receive, send)
        elif origin is not None and origin == self._own:
            await self._app(scope, receive, send)
        elif path in ENDPOINTS and origin is not None and origin in map(origin_of, self._allowed()):
            await self._clients(scope, receive, send)
        else:
            await self._refuse(scope, ", ".join(headers))(scope, receive, send)

    def _refuse(self, scope: Scope, origin: str) -> PlainTextResponse:
        if scope["path"] not in ENDPOINTS:
            return PlainTextResponse("Requests of other origins are refused\n", 403)
        refusal = Refusal(
            kind="origin",
            reason="web pages of this origin may not be clients here",
            remedy="If it is a client of yours, list the origin in clients.origins of gateway.json, or switch the"
            " client on with `sudo opencode-gateway clients enable NAME`",
            client=origin,
            address=address_of(scope),
        )
        self._on_refusal(refusal)
        return PlainTextResponse(f"Requests of other origins are refused. {refusal.remedy}.\n", 403)


class _Allowed(CORSMiddleware):
    """For those who were looked at before: who is allowed can change at any time."""

    def is_allowed_origin(self, origin: str) -> bool:
        del origin
        return True


def origin_of(url: str) -> Origin | None:
    """Return the origin that `url` is; None where it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    more = parts.path or parts.query or parts.fragment or parts.username is not None
    if more or not parts.scheme or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port


def address_of(scope: Scope) -> str:
    """Return where a request came from, as uvicorn or a front of ours tells."""
    client = scope.get("client")
    return str(client[0]) if client else ""
