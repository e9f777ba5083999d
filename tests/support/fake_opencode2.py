"""What might answer in OpenCode 2's place: another version of it, or somebody who means harm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType


class FakeOpenCode2:
    """Answers what it was told to; an async context manager on a free loopback port.

    `answers` maps `METHOD PATH` to JSON, or to a status and a body as text; what is not in it is 404. `events` are
    sent on `/api/event`, which then ends: strings as they are, all else as JSON.
    """

    def __init__(self, answers: Mapping[str, object] | None = None, *, events: Iterable[object] = ()) -> None:
        self.answers = dict(answers or {})
        self.events = list(events)
        self.asked: list[tuple[str, Any]] = []
        """What was asked for, as `METHOD PATH`, with its body."""
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    def bodies(self, call: str) -> list[Any]:
        """Return the bodies that came with a call, which is given as `METHOD PATH`."""
        return [body for asked, body in self.asked if asked == call]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        call = f"{request.method} {request.path}"
        self.asked.append((call, json.loads(content) if content else None))
        if call == "GET /api/event" and self.events:
            return await self._stream(request)
        if call not in self.answers:
            return web.json_response({"_tag": "NotFound", "message": "not found"}, status=404)
        answer = self.answers[call]
        if isinstance(answer, tuple):
            status, text = answer
            return web.Response(status=status, text=text, content_type="application/json")
        return web.json_response(answer)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in self.events:
            frame = event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n"
            await response.write(frame.encode())
        return response
