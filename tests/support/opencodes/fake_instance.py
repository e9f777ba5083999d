"""A scripted OpenCode instance: the routes that a remote driver uses, in the shapes of the real one.

It stands in where real OpenCode cannot: five hundred of them in one process, for load. Prompts are answered
with ``echo: <prompt>``, word by word, without a model. `tests/test_support.py` holds it against the real one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request

VERSION = "1.18.33"
HEARTBEAT_SECONDS = 10.0
_SESSIONS_BY_DEFAULT = 100
_counter = itertools.count()


def identifier(prefix: str) -> str:
    """Return a new id of OpenCode's form: prefix, 12 hexadecimal digits of the time, 14 more characters."""
    return f"{prefix}_{time.time_ns() // 250 % 2**48:012x}{next(_counter):014d}"


def _now() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class FakeInstance:
    """One instance's state, all in memory."""

    port: int
    directory: str
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    subscribers: set[asyncio.Queue[str | None]] = field(default_factory=set)
    turns: set[asyncio.Task[None]] = field(default_factory=set)
    queued: dict[str, list[tuple[dict[str, Any], str]]] = field(default_factory=dict)
    """By session, what came while it was busy, and is answered before it is idle: messages and their texts."""

    def add_session(self, title: str) -> dict[str, Any]:
        """Add an idle session, the newest now."""
        now = max([_now(), *(session["time"]["updated"] + 1 for session in self.sessions.values())])
        session: dict[str, Any] = {
            "id": identifier("ses"),
            "slug": "fake-session",
            "projectID": "global",
            "directory": self.directory,
            "path": self.directory.lstrip("/"),
            "title": title,
            "version": VERSION,
            "cost": 0,
            "tokens": {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}},
            "time": {"created": now, "updated": now},
        }
        self.sessions[session["id"]] = session
        self.messages[session["id"]] = []
        return session

    def publish(self, kind: str, **properties: object) -> None:
        """Send an event to whoever listens."""
        frame = _frame(kind, properties)
        for queue in self.subscribers:
            queue.put_nowait(frame)

    def end_streams(self) -> None:
        """End all event streams, as a broken connection does."""
        for queue in self.subscribers:
            queue.put_nowait(None)

    def be_busy(self, *, busy: bool) -> None:
        """Begin or end a turn in the oldest session, in which nothing happens."""
        session_id = next(iter(self.sessions))
        self.busy = {session_id} if busy else set()
        self._publish_status(session_id, "busy" if busy else "idle")

    def touch(self) -> None:
        """Tell that the oldest session has changed."""
        session = next(iter(self.sessions.values()))
        session["time"]["updated"] = _now()
        self.publish("session.updated", sessionID=session["id"], info=session)

    def prompt(self, session_id: str, body: Mapping[str, Any]) -> None:
        """Take a message at once, and answer it in the background, after what runs."""
        session = self.sessions[session_id]
        session["time"]["updated"] = _now()
        self.publish("session.updated", sessionID=session_id, info=session)
        question = self._add_message(session_id, "user", body.get("messageID"))
        self.publish("message.updated", sessionID=session_id, info=question["info"])
        for part in body["parts"]:
            self._add_part(question, part)
        asked = (question, "".join(part.get("text", "") for part in body["parts"]))
        if session_id in self.busy:
            self.queued.setdefault(session_id, []).append(asked)
            return
        self.busy.add(session_id)
        turn = asyncio.create_task(self._turn(session_id, *asked))
        self.turns.add(turn)
        turn.add_done_callback(self.turns.discard)

    async def work(self, session_id: str, text: str) -> None:
        """Do what comes between a prompt and its answer: nothing, unless a kind of instance has something."""

    async def _turn(self, session_id: str, question: dict[str, Any], asked: str) -> None:
        """Publish what OpenCode publishes for a plain turn, in its order."""
        await self._answer(session_id, question, asked)
        while waiting := self.queued.get(session_id):
            await self._answer(session_id, *waiting.pop(0))
        self._publish_status(session_id, "busy")
        self.busy.discard(session_id)
        self._publish_status(session_id, "idle")
        self.publish("session.idle", sessionID=session_id)

    async def _answer(self, session_id: str, question: dict[str, Any], asked: str) -> None:
        self._publish_status(session_id, "busy")
        answer = self._add_message(session_id, "assistant", parent=question["info"]["id"])
        self.publish("message.updated", sessionID=session_id, info=answer["info"])
        self._add_part(answer, {"type": "step-start"})
        await self.work(session_id, asked)
        text = self._add_part(answer, {"type": "text", "text": "", "time": {"start": _now()}})
        said = f"echo: {asked}"
        for delta in re.findall(r"\s*\S+|\s+$", said):
            ids = {"sessionID": session_id, "messageID": answer["info"]["id"], "partID": text["id"]}
            self.publish("message.part.delta", **ids, field="text", delta=delta)
            await asyncio.sleep(0)  # each word travels by itself
        text["text"] = said
        text["time"]["end"] = _now()
        self._publish_part(text)
        self._add_part(answer, {"type": "step-finish", "reason": "stop", "tokens": _tokens(), "cost": 0})
        answer["info"] |= {"finish": "stop", "time": {**answer["info"]["time"], "completed": _now()}}
        for _ in range(2):
            self.publish("message.updated", sessionID=session_id, info=answer["info"])

    def _add_message(
        self, session_id: str, role: str, message_id: str | None = None, parent: str | None = None
    ) -> dict[str, Any]:
        info: dict[str, Any] = {
            "id": message_id or identifier("msg"),
            "sessionID": session_id,
            "role": role,
            "time": {"created": _now()},
            "agent": "build",
        }
        if role == "assistant":
            info |= {
                "parentID": parent,
                "mode": "build",
                "path": {"cwd": self.directory, "root": "/"},
                "modelID": "fake",
                "providerID": "fake",
                "cost": 0,
                "tokens": _tokens(),
            }
        else:
            info["model"] = {"providerID": "fake", "modelID": "fake"}
        message = {"info": info, "parts": []}
        self.messages[session_id].append(message)
        return message

    def _add_part(self, message: dict[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
        info = message["info"]
        part = {"id": identifier("prt"), **content, "messageID": info["id"], "sessionID": info["sessionID"]}
        message["parts"].append(part)
        self._publish_part(part)
        return part

    def _publish_part(self, part: dict[str, Any]) -> None:
        self.publish("message.part.updated", sessionID=part["sessionID"], part=dict(part), time=_now())

    def _publish_status(self, session_id: str, status: str) -> None:
        self.publish("session.status", sessionID=session_id, status={"type": status})


def _tokens() -> dict[str, Any]:
    return {"total": 2, "input": 1, "output": 1, "reasoning": 0, "cache": {"read": 0, "write": 0}}


def application(instances: Mapping[int, FakeInstance]) -> Starlette:
    """Return one application for all `instances`; the port that a request came in by tells which one is meant."""
    routes = [
        Route("/global/health", _health),
        Route("/path", _path),
        Route("/session", _sessions),
        Route("/session", _create, methods=["POST"]),
        Route("/session/status", _status),
        Route("/session/{id}", _session),
        Route("/session/{id}/children", _nothing),
        Route("/session/{id}/message", _messages),
        Route("/session/{id}/message/{message}", _message),
        Route("/session/{id}/prompt_async", _prompt, methods=["POST"]),
        Route("/session/{id}/abort", _yes, methods=["POST"]),
        Route("/permission", _nothing),
        Route("/question", _nothing),
        Route("/event", _events),
        Route("/tui/{action}", _yes, methods=["POST"]),
        Route("/{rest:path}", _page),
    ]
    fakes = Starlette(routes=routes)
    fakes.state.instances = instances
    return fakes


def _instance(request: Request) -> FakeInstance:
    instances: Mapping[int, FakeInstance] = request.app.state.instances
    return instances[request.scope["server"][1]]


async def _health(_: Request) -> Response:
    return JSONResponse({"healthy": True, "version": VERSION})


async def _path(request: Request) -> Response:
    home, directory = "/home/fake", _instance(request).directory
    return JSONResponse({"home": home, "state": home, "config": home, "worktree": "/", "directory": directory})


async def _sessions(request: Request) -> Response:
    newest = sorted(_instance(request).sessions.values(), key=lambda s: -s["time"]["updated"])
    return JSONResponse(newest[: int(request.query_params.get("limit", _SESSIONS_BY_DEFAULT))])


async def _create(request: Request) -> Response:
    fake = _instance(request)
    session = fake.add_session((await request.json()).get("title", "New session"))
    fake.publish("session.created", sessionID=session["id"], info=session)
    return JSONResponse(session)


async def _session(request: Request) -> Response:
    found = _instance(request).sessions.get(request.path_params["id"])
    return JSONResponse(found) if found else _not_found(request)


async def _status(request: Request) -> Response:
    return JSONResponse({session_id: {"type": "busy"} for session_id in _instance(request).busy})


async def _messages(request: Request) -> Response:
    found = _instance(request).messages.get(request.path_params["id"])
    limit = int(request.query_params.get("limit", 0))
    return _not_found(request) if found is None else JSONResponse(found[-limit:])


async def _message(request: Request) -> Response:
    found = _instance(request).messages.get(request.path_params["id"], [])
    named = [message for message in found if message["info"]["id"] == request.path_params["message"]]
    return JSONResponse(named[0]) if named else _not_found(request)


async def _prompt(request: Request) -> Response:
    fake = _instance(request)
    if request.path_params["id"] not in fake.sessions:
        return _not_found(request)
    fake.prompt(request.path_params["id"], await request.json())
    return Response(status_code=204)


async def _nothing(_: Request) -> Response:
    return JSONResponse([])


async def _yes(_: Request) -> Response:
    return JSONResponse(content=True)


async def _events(request: Request) -> Response:
    headers = {"cache-control": "no-cache, no-transform"}
    return StreamingResponse(_stream(_instance(request)), media_type="text/event-stream", headers=headers)


async def _page(_: Request) -> Response:
    """Answer an unknown path as OpenCode does."""
    return HTMLResponse("<!doctype html><title>OpenCode</title>")


def _not_found(request: Request) -> Response:
    message = f"Session not found: {request.path_params['id']}"
    return JSONResponse({"name": "NotFoundError", "data": {"message": message}}, status_code=404)


def _frame(kind: str, properties: Mapping[str, object] | None = None) -> str:
    """Return an event as it goes over the wire: as things are now, whatever becomes of them."""
    return f"data: {json.dumps({'id': identifier('evt'), 'type': kind, 'properties': properties or {}})}\n\n"


async def _stream(fake: FakeInstance) -> AsyncIterator[str]:
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    fake.subscribers.add(queue)
    try:
        yield _frame("server.connected")
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    frame = await queue.get()
            except TimeoutError:
                frame = _frame("server.heartbeat")
            if frame is None:
                return
            yield frame
    finally:
        fake.subscribers.discard(queue)
