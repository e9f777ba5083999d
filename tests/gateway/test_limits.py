"""What one login may have running at once, and that nobody else's calls count."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
from fastmcp.server.auth import AccessToken
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from starlette.responses import PlainTextResponse

from opencode_gateway.limits import CALLS, CallLimits
from support.waiting import eventually_async

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class World:
    """Calls that wait until they are let go, behind the limits; who calls stands in a header."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = 0
        self._limits = CallLimits(self._answer)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running += 1
        await self.go.wait()
        self.running -= 1
        await PlainTextResponse("done")(scope, receive, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        login = dict(scope["headers"]).get(b"x-login", b"").decode()
        if login:
            token = AccessToken(token="t", client_id="shared", scopes=[], subject=login)
            scope["user"] = AuthenticatedUser(token)
        await self._limits(scope, receive, send)

    async def call(self, login: str) -> int:
        transport = httpx.ASGITransport(self)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return (await client.post("/mcp", content=b"{}", headers={"X-Login": login} if login else {})).status_code


async def test_one_login_has_so_many_calls_at_once_and_more_when_they_are_done() -> None:
    world = World()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(world.call("ann")) for _ in range(CALLS)]
        others = [group.create_task(world.call("ben"))]
        others += [group.create_task(world.call("")) for _ in range(CALLS + 1)]  # without a token: refused further in
        await eventually_async(lambda: world.running == len(calls) + len(others))

        assert await world.call("ann") == 429
        world.go.set()
    assert {call.result() for call in calls + others} == {200}
    assert await world.call("ann") == 200
