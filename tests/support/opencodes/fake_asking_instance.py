"""A scripted OpenCode instance that asks for permission, may be restarted, and keeps a record of what reached it.

The record is what a run with faults is judged by: it is made where a message or a decision arrives, behind all that
can break.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from support.opencodes.fake_fleet import QuietServer
from support.opencodes.fake_instance import FakeInstance, application, identifier
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request

ASKS = "ASK"
"""A prompt with this word has the turn ask for permission before it answers."""


@dataclass
class OpenAsk:
    """An ask that waits. `command` is what it is for."""

    id: str
    session: str
    command: str
    decided: asyncio.Future[str]

    def wire(self) -> dict[str, Any]:
        """Return it as OpenCode 1 lists it."""
        return {
            "id": self.id,
            "sessionID": self.session,
            "permission": "bash",
            "patterns": [self.command],
            "metadata": {},
            "always": [],
        }


@dataclass(frozen=True)
class ArrivedDecision:
    """A decision that arrived, and what the ask said at that moment."""

    ask: str
    command: str
    decision: str


@dataclass
class AskingInstance(FakeInstance):
    """One instance; what it holds of sessions and messages outlives a restart, as OpenCode's database does."""

    open: dict[str, OpenAsk] = field(default_factory=dict)
    arrived: dict[str, str] = field(default_factory=dict)
    """Texts of the prompts that arrived, by their ids: one posted again under its id is the same."""
    posts: int = 0
    """How often a prompt was posted, with those that were posted again."""
    asked: dict[str, str] = field(default_factory=dict)
    """The prompt that each ask was about, by the ask's id."""
    broken_off: set[str] = field(default_factory=set)
    """Asks that ended with a restart."""
    changes: int = 0
    """How many asks changed."""
    decisions: list[ArrivedDecision] = field(default_factory=list)

    def times_delivered(self, text: str) -> int:
        """Return how many messages with this text arrived."""
        return Counter(self.arrived.values())[text]

    def applied(self) -> list[tuple[str, str, str]]:
        """Return the decisions that arrived: the ask's id, what the server calls it then, and the decision."""
        return [(each.ask, f"bash {each.command}", each.decision) for each in self.decisions]

    def unsettled(self) -> list[str]:
        """Return the ids of the asks that still wait."""
        return list(self.open)

    def prompt(self, session_id: str, body: Mapping[str, Any]) -> None:
        """Start a turn, unless that very message came before."""
        self.posts += 1
        if body["messageID"] not in self.arrived:
            self.arrived[body["messageID"]] = "".join(part["text"] for part in body["parts"])
            super().prompt(session_id, body)

    async def work(self, session_id: str, text: str) -> None:
        """Ask, where the prompt says so, and wait for the decision."""
        if ASKS not in text.split():
            return
        ask = OpenAsk(identifier("per"), session_id, f"run {text}", asyncio.get_running_loop().create_future())
        self.open[ask.id] = ask
        self.asked[ask.id] = text
        self.publish("permission.asked", **ask.wire())
        await ask.decided

    def change(self, ask_id: str) -> None:
        """Let an ask, if it is open, be about something else from now on, without a word."""
        if ask_id in self.open:
            self.open[ask_id].command += ", changed"
            self.changes += 1

    def decide(self, ask_id: str, decision: str) -> bool:
        """Settle an ask; return whether it was open."""
        ask = self.open.pop(ask_id, None)
        if ask is None:
            return False
        self.decisions.append(ArrivedDecision(ask_id, ask.command, decision))
        ask.decided.set_result(decision)
        self.publish("permission.replied", sessionID=ask.session, requestID=ask_id, reply=decision)
        return True

    async def restart(self) -> None:
        """End all turns and asks in mid-air, as OpenCode does when it is ended, and be there again."""
        # All at once: what begins from here on is of the next process.
        turns = tuple(self.turns)
        for turn in turns:
            turn.cancel()
        self.broken_off |= self.open.keys()
        self.open.clear()
        self.busy.clear()
        self.queued.clear()
        self.end_streams()
        await asyncio.gather(*turns, return_exceptions=True)


def _asking(request: Request) -> AskingInstance:
    instances: Mapping[int, AskingInstance] = request.app.state.instances
    return instances[request.scope["server"][1]]


async def _asks(request: Request) -> Response:
    return JSONResponse([ask.wire() for ask in _asking(request).open.values()])


async def _reply(request: Request) -> Response:
    ask_id = request.path_params["id"]
    if _asking(request).decide(ask_id, (await request.json())["reply"]):
        return JSONResponse(content=True)
    message = f"Permission request not found: {ask_id}"
    return JSONResponse({"_tag": "PermissionNotFoundError", "requestID": ask_id, "message": message}, status_code=404)


@asynccontextmanager
async def asking_instances(names: list[str], *, sessions: int) -> AsyncIterator[dict[str, AskingInstance]]:
    """Serve so many instances in this process, each with so many sessions; return them by name."""
    instances: dict[int, AskingInstance] = {}
    listeners = []
    for name in names:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        instances[port] = AskingInstance(port, f"/home/fake/{name}")
        for number in range(sessions):
            instances[port].add_session(f"Session {number} of {name}")
        listeners.append(listener)
    routes = [
        Route("/permission", _asks),
        Route("/permission/{id}/reply", _reply, methods=["POST"]),
        Mount("/", application(instances)),
    ]
    asking = Starlette(routes=routes)
    asking.state.instances = instances
    server = QuietServer(uvicorn.Config(asking, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve(listeners))
    try:
        await eventually_async(lambda: server.started, "the scripted instances")
        yield dict(zip(names, instances.values(), strict=True))
    finally:
        for instance in instances.values():
            await instance.restart()
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await serving
