"""What might answer in OpenCode 2's place: another version of it, or somebody who means harm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from support.opencodes.connected import VERBS, guard_document
from support.opencodes.fake_http import FakeHttp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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


class FakeOpenCode2(FakeHttp):
    """Sends `events` on `/api/event`, which then ends: strings as they are, all else as JSON."""

    def __init__(self, answers: Mapping[str, object] | None = None, *, events: Iterable[object] = ()) -> None:
        super().__init__(answers)
        self.events = list(events)

    async def answer(self, request: web.Request, call: str) -> web.StreamResponse:
        """Answer a call, given as `METHOD PATH`."""
        if call != "GET /api/event" or not self.events:
            return await super().answer(request, call)
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
