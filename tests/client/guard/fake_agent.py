"""A scripted agent behind the guard, for what a real one does not do on demand: redirects and floods."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from opencode_connected.guard.upstream import Target
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FakeAgent:
    """Answers every request with `handler`, and notes what came."""

    port: int
    handler: Handler
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    def target(self, generation: int = 2, authorization: str | None = "Basic of-the-agent") -> Target:
        return Target(f"http://127.0.0.1:{self.port}", authorization, generation, "2.0.15")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = {key.lower(): value for key, value in request.headers.items()}
        self.requests.append((request.method, request.raw_path, headers, await request.read()))
        return await self.handler(request)


@asynccontextmanager
async def fake_agent(handler: Handler, port: int | None = None) -> AsyncIterator[FakeAgent]:
    """Serve a scripted agent."""
    agent = FakeAgent(port or free_port(), handler)
    application = web.Application(client_max_size=64 << 20)
    application.router.add_route("*", "/{path:.*}", agent.answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", agent.port).start()
        yield agent
    finally:
        await runner.cleanup()


def session_in(directory: str) -> web.Response:
    """Return OpenCode 2's answer that a session is in `directory`."""
    return web.json_response({"data": {"id": "ses_a", "location": {"directory": directory}}})
