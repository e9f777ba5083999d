"""What every request meets first, whatever its route: checks of Host and body, and headers of the answer.

`origins` holds what is asked of pages of other sites.

ASGI middleware. It knows little of MCP or OAuth, and keeps nothing between two requests.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import anyio
from mcp.server.transport_security import RequestBodyLimitMiddleware
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from opencode_gateway.configuration import MCP_PATH, UPLOAD_PATH
from opencode_gateway.door.origins import OriginGuard, address_of, origin_of
from opencode_gateway.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEALTH_PATH: Final = "/healthz"
FORM_BYTES: Final = 64 * 1024
"""What a stranger may send: sign-in forms, client metadata, token requests. For `/mcp` see `limits`."""
BODY_SECONDS: Final = 30.0
"""A body that has not arrived by then is not waited for any longer."""
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_HOST: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def guarded(
    app: ASGIApp,
    public_url: str,
    *,
    origins: Callable[[], Collection[str]] = tuple,
    on_refusal: Callable[[Refusal], None] = lambda refusal: None,
) -> ASGIApp:
    """Return `app` behind all guards. Only loopback names and `public_url`'s host reach it, see `HostGuard`.

    Args:
        app: what is guarded.
        public_url: where people and chat clients find it.
        origins: whose pages may be clients now, see `OriginGuard`.
        on_refusal: hears of hosts and origins that are refused.
    """
    limited = RequestBodyLimitMiddleware(app, FORM_BYTES)

    async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
        # What people paste ends in a slash now and then. A redirect would cost some clients their token.
        if scope.get("path") == f"{MCP_PATH}/":
            scope = {**scope, "path": MCP_PATH, "raw_path": MCP_PATH.encode()}
        # These are limited after the token or the link was seen to be good: until then nothing of a body is read.
        limits_itself = scope.get("path") == MCP_PATH or str(scope.get("path")).startswith(f"{UPLOAD_PATH}/")
        await (app if limits_itself else limited)(scope, receive, send)

    bounded = SlowBodyGuard(by_path)
    asked = HostGuard(OriginGuard(bounded, public_url, origins, on_refusal), public_url, on_refusal)
    return SecurityHeaders(asked, https=public_url.startswith("https:"))


class HostGuard:
    """Answers only to its own name: `/healthz` to loopback names, everything else to the public one.

    So a web page cannot reach it by rebinding a name of its own, and the health of the children is nobody's business
    who comes through the front.
    """

    def __init__(self, app: ASGIApp, public_url: str, on_refusal: Callable[[Refusal], None]) -> None:
        self._app = app
        self._public_url = public_url
        self._origin = origin_of(public_url) or ("", "", 0)
        self._host = self._origin[1:]
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 421."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) == 1 and self._is_for_us(scope["path"], hosts[0]):
            await self._app(scope, receive, send)
            return
        if scope["path"] != HEALTH_PATH:
            self._on_refusal(self._refusal(scope, hosts))
        await PlainTextResponse("This host is not served here", 421)(scope, receive, send)

    def _is_for_us(self, path: str, host: str) -> bool:
        # What parsers of URLs leave out, as tabs, is in no name.
        if not _HOST.fullmatch(host):
            return False
        named = origin_of(f"{self._origin[0]}://{host}")
        if path == HEALTH_PATH:
            return named is not None and named[1] in _LOOPBACK
        return named is not None and named[1:] == self._host

    def _refusal(self, scope: Scope, hosts: list[str]) -> Refusal:
        return Refusal(
            kind="host",
            reason=f"it was asked for by another name than that of {self._public_url}",
            remedy="Let the proxy pass the Host header on as it came, or correct public_url in gateway.json",
            client=", ".join(hosts),
            address=address_of(scope),
        )


class SlowBodyGuard:
    """Ends a request whose body comes too slowly, so that nobody holds connections by dripping bytes."""

    def __init__(self, app: ASGIApp, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; its app sees the client gone when the body is late, and the client gets a 408."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = anyio.current_time() + self._seconds
        complete = late = started = False

        async def in_time() -> Message:
            nonlocal complete, late
            if complete:
                return await receive()
            with anyio.move_on_at(deadline):
                message = await receive()
                complete = not message.get("more_body", False)
                return message
            late = complete = True
            await PlainTextResponse("The request came too slowly", 408, {"Connection": "close"})(scope, receive, send)
            return {"type": "http.disconnect"}

        async def once(message: Message) -> None:
            nonlocal started
            # An answer that began before its request was complete goes on; none begins after the 408.
            if not late or started:
                started = True
                await send(message)

        try:
            await self._app(scope, in_time, once)
        except Exception:
            if not late:
                raise


class SecurityHeaders:
    """Adds what browsers and caches must know, where the route has not said it more exactly."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": _NOTHING,
            # `no-referrer` would make the browser send `Origin: null` with our own forms.
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }
        if https:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and complete the headers of its answer."""

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, complete)
