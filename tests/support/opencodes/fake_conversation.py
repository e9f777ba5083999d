"""An OpenCode of either generation with one long conversation, in as large messages as wanted."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from opencode_fleet.agents.guard import GUARD_PATH
from opencode_fleet.agents.http import LARGE_BODY
from support.opencodes.fake_http import FakeHttp
from support.opencodes.fake_opencode2 import GUARD

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = "/home/ann/api"
PATHS = {1: "/session/ses_1/message", 2: "/api/session/ses_1/message"}
_SESSION = {"id": "ses_1", "directory": HOME, "location": {"directory": HOME}, "time": {"created": 1, "updated": 2}}


class FakeConversation(FakeHttp):
    """Its messages are `msg_0`, `msg_1`, …: a person's and an answer to it in turn, of `size` characters each.

    `messages` holds them as they are listed, `pages` how many each request asked for, `streams` each opening of
    events. Without `tells_pages` no answer says how to go on after it, as before OpenCode 1.2. A heartbeat comes
    every `heartbeat` seconds.
    """

    def __init__(
        self, generation: int, *, count: int, size: int, tells_pages: bool = True, heartbeat: float = 10.0
    ) -> None:
        super().__init__(
            {
                "GET /global/health": {"healthy": True, "version": "1.18.33"},
                "GET /path": {"directory": HOME},
                "GET /session": [_SESSION],
                "GET /session/ses_1": _SESSION,
                "GET /session/status": {},
                "GET /permission": [],
                "GET /question": [],
                "GET /api/session": {"data": [_SESSION]},
                "GET /api/session/active": {"data": {}},
                "GET /api/session/ses_1": {"data": _SESSION},
                "GET /api/session/ses_1/inbox": {"data": []},
            }
        )
        if generation == 2:
            self.answers[f"GET {GUARD_PATH}"] = GUARD.model_dump(mode="json")
        self.pages: list[int] = []
        self.cursors: Iterator[str] | None = None
        """What leads on after each page; None: what is right."""
        self.streams: list[str] = []
        self._generation = generation
        self.messages = [self._message(number, "x" * size) for number in range(count)]
        self._tells_pages = tells_pages
        self._heartbeat = heartbeat

    async def answer(self, request: web.Request, call: str) -> web.StreamResponse:
        """Answer a call, given as `METHOD PATH`."""
        if call == f"GET {PATHS[self._generation]}":
            return self._page(int(request.query["limit"]), request.query)
        number = call.removeprefix(f"GET {PATHS[self._generation]}/msg_")
        if number.isdecimal():
            return web.json_response(self.messages[int(number)])
        if call in {"GET /event", "GET /api/event"}:
            self.streams.append(call)
            return await self._events(request)
        return await super().answer(request, call)

    def enlarge(self, number: int) -> None:
        """Make a message larger than an answer may be."""
        self.messages[number] = self._message(number, "x" * LARGE_BODY)

    def _message(self, number: int, text: str) -> dict[str, Any]:
        message_id, is_user = f"msg_{number}", number % 2 == 0
        role = "user" if is_user else "assistant"
        if self._generation == 2:
            said = {"text": text} if is_user else {"content": [{"type": "text", "text": text}], "finish": "stop"}
            return {"id": message_id, "type": role, "time": {"created": number, "completed": number}, **said}
        head = {
            "id": message_id,
            "role": role,
            "sessionID": "ses_1",
            "time": {"created": number, "completed": number},
        }
        answers = {} if is_user else {"parentID": f"msg_{number - 1}", "finish": "stop"}
        return {"info": {**head, **answers}, "parts": [{"id": f"prt_{number}", "type": "text", "text": text}]}

    def _page(self, limit: int, query: Any) -> web.Response:
        end = int(query.get("before") or query.get("cursor") or len(self.messages))
        start = max(0, end - limit)
        self.pages.append(limit)
        page, more = self.messages[start:end], str(start) if start and self._tells_pages else None
        more = next(self.cursors) if self.cursors else more
        if self._generation == 2:
            return web.json_response({"data": page[::-1], "cursor": {"next": more}})
        return web.json_response(page, headers={"x-next-cursor": more} if more else None)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        kind = "server.connected"
        with suppress(ConnectionError):
            while True:
                await response.write(f"data: {json.dumps({'type': kind, 'properties': {}})}\n\n".encode())
                kind = "server.heartbeat"
                await asyncio.sleep(self._heartbeat)
        return response


class FakeDrip(FakeHttp):
    """Answers without an end: on `/drips` a few bytes a second, on `/flows` many; on `/silent` nothing comes.

    On `/large` it says that two megabytes will come, and nothing does.
    """

    async def answer(self, request: web.Request, call: str) -> web.StreamResponse:
        """Answer a call, given as `METHOD PATH`."""
        if call == "GET /silent":
            await asyncio.Event().wait()
        response = web.StreamResponse(headers={"content-type": "application/json"})
        if call == "GET /large":
            response.content_length = 2 << 20
        await response.prepare(request)
        if call == "GET /large":
            await asyncio.Event().wait()
        while True:
            await response.write(b" " * (10 if call == "GET /drips" else 4_000))
            await asyncio.sleep(0.05)
