"""Agents of the fleet for tests: connected straight to what they speak to, and all that they tell."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from opencode_fleet.agents.guard import GuardDocument
from opencode_fleet.agents.http import AgentClient
from opencode_fleet.agents.opencode2 import OpenCode2
from opencode_fleet.agents.opencode2.operations import KNOWN
from opencode_fleet.errors import InstanceError
from opencode_fleet.events import StatusChanged
from opencode_fleet.model import Prompt
from opencode_fleet.prompt_ids import new_prompt_id
from opencode_fleet.transports.base import Endpoint
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from opencode_fleet.agent import Agent
    from opencode_fleet.events import Event
    from support.opencodes.opencode2 import Service2

Kind = TypeVar("Kind")

VERBS = (*sorted({known.verb for known in KNOWN}), "openapi")
WITHIN = 90.0
"""Seconds: a turn takes one, and many times that on a machine that does much else."""


def guard_document(
    opened: Mapping[str, str] | None = None,
    *,
    roots: Iterable[str] = (),
    verbs: Iterable[str] = VERBS,
    version: str = "2.0.15",
) -> GuardDocument:
    """Return a guard's document: `opened` maps directories to names, below `roots` all is allowed."""
    directories: list[dict[str, object]] = [
        {"path": path, "name": name, "opened": True} for path, name in (opened or {}).items()
    ]
    directories += [{"path": root, "opened": False} for root in roots]
    return GuardDocument.model_validate(
        {
            "guard": 1,
            "generation": 2,
            "version": version,
            "rights": ["observe", "drive", "approve"],
            "directories": directories,
            "verbs": list(verbs),
        }
    )


def client_for(url: str, password: str = "") -> AgentClient:
    """Return a client for what listens at `url`."""
    client = AgentClient(Endpoint("laptop", url, "laptop.example", "/home/ann"), 20.0)
    if password:
        client.authorize("opencode", password)
    return client


@asynccontextmanager
async def opencode2_at(service: Service2, guard: GuardDocument) -> AsyncIterator[OpenCode2]:
    """Connect to a real OpenCode 2, as if the guard of that document stood before it."""
    async with opencode2_behind(service.url, guard, service.record()["password"]) as agent:
        yield agent


@asynccontextmanager
async def opencode2_behind(url: str, guard: GuardDocument, password: str = "") -> AsyncIterator[OpenCode2]:
    """Connect to what answers at `url` as an OpenCode 2."""
    client = client_for(url, password)
    try:
        yield await OpenCode2.connect(client, guard)
    finally:
        await client.aclose()


class Heard:
    """What an agent told since `listening` was entered."""

    def __init__(self, events: AsyncIterator[Event | None]) -> None:
        self.events: list[Event | None] = []
        self.broken: InstanceError | None = None
        """Why the stream broke, if it did."""
        self._source = events

    async def listen(self) -> None:
        """Take all that comes."""
        try:
            async for event in self._source:
                self.events.append(event)
        except InstanceError as error:
            self.broken = error

    def of(self, kind: type[Kind], session_id: str) -> list[Kind]:
        """Return what was told of a session, of one kind of event."""
        mine = [event for event in self.events if event is not None and event.session_id == session_id]
        return [event for event in mine if isinstance(event, kind)]

    async def first(self, kind: type[Kind], where: Callable[[Kind], bool] = lambda _: True) -> Kind:
        """Wait for an event of that kind and return it."""

        def found() -> list[Kind]:
            return [event for event in self.events if isinstance(event, kind) and where(event)]

        matching: list[Kind] = await eventually_async(found, f"a {kind.__name__}", within=WITHIN)
        return matching[0]

    async def until_idle(self, session_id: str) -> None:
        """Wait until the session has run and is idle again."""

        def is_idle() -> bool:
            told = self.of(StatusChanged, session_id)
            return bool(told) and told[-1].status is None

        await eventually_async(is_idle, f"the end of {session_id}'s turn", within=WITHIN)


@asynccontextmanager
async def listening(agent: Agent) -> AsyncIterator[Heard]:
    """Hold an agent's event stream open, and keep all that it tells."""
    async with agent.events() as events:
        heard = Heard(events)
        task = asyncio.create_task(heard.listen())
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.wait([task])


async def post(agent: Agent, session_id: str, text: str) -> Prompt:
    """Post a prompt with an id of its own."""
    prompt = Prompt(session_id, new_prompt_id(), text)
    await agent.prompt(prompt)
    return prompt
