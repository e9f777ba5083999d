"""In the place of many machines, each with one OpenCode 2 that works in many directories, behind its guard."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from support.fleet.registry import register, registration
from support.opencodes.connected import VERBS, guard_document
from support.opencodes.fake_http import FakeHttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class FakeMachine(FakeHttp):
    """One service with a session in each of its directories, all idle, and a stream in which nothing happens."""

    def __init__(self, name: str, directories: int) -> None:
        places = {f"/home/ann/{name}/project-{number}": f"{name}-project-{number}" for number in range(directories)}
        guard = guard_document(places, verbs=[verb for verb in VERBS if verb != "openapi"])
        now = int(time.time() * 1000)
        sessions = [
            {
                "id": f"ses_{name.replace('-', '')}{number}",
                "projectID": "p",
                "location": {"directory": directory},
                "time": {"created": now, "updated": now},
            }
            for number, directory in enumerate(places)
        ]
        super().__init__(
            {
                "GET /opencode-relay/guard": guard.model_dump(),
                "GET /global/health": {"healthy": True, "version": "2.0.15"},
                "GET /api/session/active": {"data": {}},
                "GET /api/session": {"data": sessions, "cursor": {"next": None}},
            }
        )

    async def answer(self, request: web.Request, call: str) -> web.StreamResponse:
        """Answer a call, given as `METHOD PATH`."""
        if call != "GET /api/event":
            return await super().answer(request, call)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"type": "server.connected"}\n\n')
        await asyncio.Event().wait()
        return response


@asynccontextmanager
async def fake_machines(registry: Path, count: int, directories: int) -> AsyncIterator[None]:
    """Run and register so many machines with so many directories each."""
    async with AsyncExitStack() as stack:
        for number in range(count):
            name = f"machine-{number}"
            machine = await stack.enter_async_context(FakeMachine(name, directories))
            port = int(machine.url.rpartition(":")[2])
            register(registry, registration(name, port, cwd=f"/home/ann/{name}/project-0"))
        yield
