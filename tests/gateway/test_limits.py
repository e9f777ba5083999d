"""What one login may have running at once, and that nobody else's calls count."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
from fastmcp.server.auth import AccessToken
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from starlette.responses import PlainTextResponse

from opencode_gateway.door.limits import ALL_LARGE_CALLS, CALLS, LARGE_BYTES, LARGE_CALLS, CallLimits
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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

    async def call(self, login: str, content: bytes | AsyncIterator[bytes] = b"{}") -> int:
        transport = httpx.ASGITransport(self)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            headers = {"X-Login": login} if login else {}
            return (await client.post("/mcp", content=content, headers=headers)).status_code


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


async def test_of_large_calls_one_login_has_fewer_and_so_have_all_together() -> None:
    large = b" " * (LARGE_BYTES + 1)
    logins = [f"login-{number}" for number in range(ALL_LARGE_CALLS // LARGE_CALLS)]

    async def of_no_length() -> AsyncIterator[bytes]:
        yield b"{}"

    world = World()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(world.call(logins[0], large)) for _ in range(LARGE_CALLS)]
        await eventually_async(lambda: world.running == LARGE_CALLS)
        assert await world.call(logins[0], large) == 429
        assert await world.call(logins[0], of_no_length()) == 429

        calls += [group.create_task(world.call(login, large)) for login in logins[1:] for _ in range(LARGE_CALLS)]
        await eventually_async(lambda: world.running == ALL_LARGE_CALLS)
        assert await world.call("another", large) == 429

        calls += [group.create_task(world.call(login)) for login in (*logins, "another")]
        await eventually_async(lambda: world.running == len(calls))
        world.go.set()
    assert {call.result() for call in calls} == {200}
    assert await world.call("another", large) == 200
