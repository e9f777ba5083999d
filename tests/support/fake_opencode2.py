"""What might answer in OpenCode 2's place: another version of it, or somebody who means harm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from support.agents import VERBS, guard_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

Json = dict[str, Any]

HOME = "/home/ann/api"
GUARD = guard_document({HOME: "laptop-api"}, verbs=[verb for verb in VERBS if verb != "openapi"])
"""The document of a guard that does not let OpenAPI through."""
SESSION = {"id": "ses_1", "projectID": "p1", "location": {"directory": HOME}, "time": {"created": 1, "updated": 2}}
SOURCE = {"type": "tool", "messageID": "msg_2", "id": "call_1"}
ASKED = {
    "id": "per_1",
    "sessionID": "ses_1",
    "action": "shell",
    "resources": ["a"],
    "save": ["a *"],
    "source": SOURCE,
}
FIELD = {"key": "q0", "type": "string", "description": "Which?", "options": [{"value": "r", "label": "Red"}]}
FORM = {"id": "frm_1", "sessionID": "ses_1", "title": "Questions", "metadata": {"tool": SOURCE}, "fields": [FIELD]}
TOOL = {"type": "tool", "id": "call_1", "name": "shell", "state": {"status": "running", "input": {"command": "a; b"}}}
ANSWER = {
    "id": "msg_2",
    "type": "assistant",
    "time": {"created": 2},
    "content": [{"type": "text", "text": "x"}, TOOL],
}
PROMPT = {"id": "msg_1", "type": "user", "time": {"created": 1}, "text": "hello"}
STEP = {"sessionID": "ses_1", "assistantMessageID": "msg_2"}
EVENTS: list[Json] = [
    {"type": "session.created", "created": 1, "data": {"sessionID": "ses_1", "location": {"directory": HOME}}},
    {"type": "session.deleted", "data": {"sessionID": "ses_1"}},
    {"type": "session.execution.started", "data": {"sessionID": "ses_1"}},
    {"type": "session.execution.failed", "data": {"sessionID": "ses_1", "error": {"type": "a", "message": "b"}}},
    {"type": "session.execution.succeeded", "data": {"sessionID": "ses_1"}},
    {"type": "session.retry.scheduled", "data": {**STEP, "attempt": 2, "error": {"type": "a", "message": "b"}}},
    {"type": "session.inbox.enqueued", "data": {"sessionID": "ses_1", "inboxID": "msg_1", "item": {"type": "user"}}},
    {"type": "session.inbox.delivered", "data": {"sessionID": "ses_1", "inboxID": "msg_1"}},
    {"type": "session.step.started", "data": STEP},
    {"type": "session.step.ended", "data": {**STEP, "finish": "stop"}},
    {"type": "session.step.failed", "data": STEP},
    {"type": "session.text.started", "data": {**STEP, "ordinal": 0}},
    {"type": "session.text.delta", "data": {**STEP, "ordinal": 0, "delta": "x"}},
    {"type": "session.text.ended", "data": {**STEP, "ordinal": 0, "text": "x"}},
    {"type": "session.tool.input.started", "data": {**STEP, "id": "call_1", "name": "shell"}},
    {"type": "session.tool.called", "data": {**STEP, "id": "call_1", "input": {"command": "a; b"}}},
    {"type": "session.tool.failed", "data": {**STEP, "id": "call_1"}},
    {"type": "permission.asked", "data": ASKED},
    {"type": "permission.replied", "data": {"sessionID": "ses_1", "requestID": "per_1", "reply": "once"}},
    {"type": "form.created", "data": {"form": FORM}},
    {"type": "form.replied", "data": {"sessionID": "ses_1", "id": "frm_1"}},
    {"type": "form.cancelled", "data": {"sessionID": "ses_1", "id": "frm_1"}},
]
EVENT: dict[str, object] = {str(event["type"]): event for event in EVENTS}
TOOL_CALL = [EVENT["session.tool.input.started"], EVENT["session.tool.called"]]
CONNECTED = {"type": "server.connected"}
_NOT_FOUND = (404, '{"_tag": "NotFound", "message": "not found"}')


class FakeOpenCode2:
    """Answers what it was told to; an async context manager on a free loopback port.

    `answers` maps `METHOD PATH`, also with its query, to JSON, or to a status and a body as text; what is not in it
    is 404. `events` are sent on `/api/event`, which then ends: strings as they are, all else as JSON.
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
        answer = self.answers.get(f"{request.method} {request.path_qs}", self.answers.get(call, _NOT_FOUND))
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


def running(*, asks: list[Any] | None = None, forms: list[Any] | None = None) -> dict[str, object]:
    """Return the answers of an agent in which one session runs."""
    return {
        "GET /api/session/active": {"data": {"ses_1": {"type": "running"}}},
        "GET /api/session/ses_1": {"data": SESSION},
        "GET /api/session/ses_1/permission": {"data": asks or []},
        "GET /api/session/ses_1/form": {"data": forms or []},
    }
