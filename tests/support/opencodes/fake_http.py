"""An HTTP server that answers what it was told to, for whatever a test puts in an agent's place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from types import TracebackType

_NOT_FOUND = (404, '{"_tag": "NotFound", "message": "not found"}')


class FakeHttp:
    """An async context manager on a free loopback port.

    `answers` maps `METHOD PATH`, also with its query, to JSON, or to a status and a body as text; what is not in it
    is 404. With `tls` it is https.
    """

    def __init__(self, answers: Mapping[str, object] | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[tuple[str, Any]] = []
        """What was asked for, as `METHOD PATH`, with its body."""
        self.headers: dict[str, str] = {}
        """Sent with each answer that is text."""
        self._tls = tls
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._runner.addresses[0][:2]
        return f"{'https' if self._tls else 'http'}://{host}:{port}"

    def bodies(self, call: str) -> list[Any]:
        """Return the bodies that came with a call, which is given as `METHOD PATH`."""
        return [body for asked, body in self.asked if asked == call]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        call = f"{request.method} {request.path}"
        self.asked.append((call, json.loads(content) if content else None))
        return await self.answer(request, call)

    async def answer(self, request: web.Request, call: str) -> web.StreamResponse:
        """Answer a call, given as `METHOD PATH`."""
        answer = self.answers.get(f"{request.method} {request.path_qs}", self.answers.get(call, _NOT_FOUND))
        if isinstance(answer, tuple):
            status, text = answer
            return web.Response(status=status, text=text, content_type="application/json", headers=self.headers)
        return web.json_response(answer)
