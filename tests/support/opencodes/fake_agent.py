"""An agent kind of its own, scripted, all in memory: what it takes to put another kind below a fleet is this file.

Messages are answered with ``echo: <message>``; one that begins with ``ask`` waits for a permission first, with
``question`` for an answer, which is said then. `FakeAgent.gate` holds all turns up before their answers.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from opencode_fleet.changes import WorkingTree
from opencode_fleet.credentials import Credentials
from opencode_fleet.errors import NotFound, Unreachable
from opencode_fleet.events import (
    AnswerChanged,
    AskOpened,
    AskSettled,
    PromptTaken,
    SessionChanged,
    StatusChanged,
    TextChanged,
)
from opencode_fleet.fleet import Fleet
from opencode_fleet.model import (
    Message,
    Option,
    Part,
    Permission,
    Question,
    QuestionItem,
    Runs,
    Session,
    Snapshot,
    Status,
    TurnRecord,
    Workplace,
)
from opencode_fleet.registered import Registered
from opencode_fleet.settings import ServerSettings
from opencode_fleet.transports.base import Endpoint
from support.fleet.fake_transport import FakeTransport
from support.opencodes.fake_controls import FakeControls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_fleet.agent import Capability
    from opencode_fleet.agents.http import AgentClient
    from opencode_fleet.changes import FileChange, Todo
    from opencode_fleet.errors import InstanceError
    from opencode_fleet.events import Event
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Prompt

_numbers = itertools.count(1)


class FakeAgent:
    """One agent; it works in `places`, of which the first is its own where it has only one."""

    version = "7.0"

    def __init__(self, *places: Workplace | str, can: frozenset[Capability] = frozenset()) -> None:
        self.capabilities = can
        self.rights: frozenset[str] | None = None
        self.clock: float | None = None
        self.places = [Workplace(directory=place) if isinstance(place, str) else place for place in places or ("/",)]
        self.trouble: InstanceError | None = None
        """What calls of it raise now."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.telling = asyncio.Event()
        self.telling.set()
        self.asked: list[str] = []
        """`telling` holds up what asks for lists of sessions; of these directories so far."""
        self.takes_in = True
        """Whether posted messages are stored and begun with at once; else they are accepted, and that is all."""
        self.queues = False
        """Whether those that are not taken in stand in a queue that can be seen."""
        self.offers = {"agents": ["build", "plan"], "models": ["fake/large", "fake/small"], "commands": ["greet"]}
        """What sessions can be in, be with, or run."""
        self.ran: list[tuple[str, str]] = []
        """Commands that were run, with their arguments."""
        self.switched: list[tuple[str, str, str]] = []
        """Sessions, each with the agent and the model that it was told to go on with."""
        self.posted: list[Prompt] = []
        self.decisions: list[tuple[str, str | None]] = []
        self.said: list[list[list[str]]] = []
        self.made: dict[str, Session] = {}
        self.conversations: dict[str, list[Message]] = {}
        self.whole: dict[str, Message] = {}
        self.trees: dict[str, WorkingTree] = {}
        self.changed: dict[str, tuple[FileChange, ...]] = {}
        self.to_do: dict[str, list[Todo]] = {}
        self.keeps_no_list: InstanceError | None = None
        """What is raised in place of a to-do list."""
        self.statuses: dict[str, Status] = {}
        self.open: dict[str, Ask] = {}
        self.extra = TurnRecord(is_stored=True)
        """Of it, what records say besides: that they are shared, interrupted, or failed."""
        self.controls = FakeControls(self)
        self._decided: dict[str, asyncio.Future[str]] = {}
        self._streams: set[asyncio.Queue[Event | InstanceError | None]] = set()
        self._turns: set[asyncio.Task[None]] = set()

    # -- for tests -----------------------------------------------------------------------------------------------

    def tell(self, event: Event | None) -> None:
        """Send an event to whoever listens; None: a gap."""
        for stream in self._streams:
            stream.put_nowait(event)

    def fail(self, error: InstanceError) -> None:
        """Break the streams, and answer everything with `error` until `trouble` is None again."""
        self.trouble = error
        for stream in self._streams:
            stream.put_nowait(error)

    def add_session(self, directory: str, title: str = "a session", parent_id: str | None = None) -> Session:
        """Add an idle session, the newest now."""
        number = next(_numbers)
        session = Session(
            id=f"ses_{number}", directory=directory, title=title, updated=float(number), parent_id=parent_id
        )
        self.made[session.id], self.conversations[session.id] = session, []
        return session

    def tell_busy(self, session_id: str, text: str) -> None:
        """Tell that a session runs, and what it has written so far."""
        self._set(session_id, Status())
        self.tell(TextChanged(session_id, f"prt_{session_id}", text, is_whole=True))

    def add_ask(self, session_id: str) -> Permission:
        """Let a session wait for a permission, without an event."""
        ask = Permission(id=f"per_{next(_numbers)}", session_id=session_id, action="bash", patterns=("ls",))
        self.open[ask.id] = ask
        self.statuses[session_id] = Status()
        return ask

    def take_in(self, prompt: Prompt) -> None:
        """Begin with a message."""
        turn = asyncio.create_task(self._turn(prompt))
        self._turns.add(turn)
        turn.add_done_callback(self._turns.discard)

    async def _turn(self, prompt: Prompt) -> None:
        session_id = prompt.session_id
        text = Part(id=f"prt_{prompt.id}", kind="text", text=prompt.text)
        self.conversations[session_id].append(
            Message(id=prompt.id, session_id=session_id, role="user", parts=(text,), created=time.time())
        )
        self._set(session_id, Status())
        self.tell(PromptTaken(session_id, prompt.id))
        answer = Message(id=f"msg_a{next(_numbers)}", session_id=session_id, role="assistant", answers=prompt.id)
        self.conversations[session_id].append(answer)
        self.tell(AnswerChanged(session_id, answer.id, prompt.id, ""))
        word = await self._asked(prompt)
        await self.gate.wait()
        said = f"{word}echo: {prompt.text}"
        part = Part(id=f"prt_{answer.id}", kind="text", text=said)
        for piece in (said[:3], said[3:]):
            self.tell(TextChanged(session_id, part.id, piece, is_whole=False))
        done = replace(answer, parts=(part,), completed=time.time(), ended="well")
        self.conversations[session_id][-1] = done
        self.tell(AnswerChanged(session_id, answer.id, prompt.id, "well"))
        self._set(session_id, None)

    async def _asked(self, prompt: Prompt) -> str:
        ask: Ask
        number = next(_numbers)
        if prompt.text.startswith("ask"):
            ask = Permission(id=f"per_{number}", session_id=prompt.session_id, action="bash", patterns=(prompt.text,))
        elif prompt.text.startswith("question"):
            options = (Option("Red", value="red!"), Option("Blue"))
            item = QuestionItem(question="Which colour?", options=options)
            ask = Question(id=f"que_{number}", session_id=prompt.session_id, items=(item,))
        else:
            return ""
        self.open[ask.id] = ask
        self._decided[ask.id] = asyncio.get_running_loop().create_future()
        self.tell(AskOpened(ask))
        return f"{await self._decided[ask.id]}, "

    def _set(self, session_id: str, status: Status | None) -> None:
        if status is None:
            self.statuses.pop(session_id, None)
        else:
            self.statuses[session_id] = status
        self.tell(StatusChanged(session_id, status))

    # -- as an agent -----------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close nothing."""

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Event | None]]:
        """See `Agent.events`."""
        self._check()
        stream: asyncio.Queue[Event | InstanceError | None] = asyncio.Queue()
        self._streams.add(stream)
        try:
            yield self._read(stream)
        finally:
            self._streams.discard(stream)

    async def _read(self, stream: asyncio.Queue[Event | InstanceError | None]) -> AsyncIterator[Event | None]:
        while True:
            event = await stream.get()
            if isinstance(event, Exception):
                raise event
            yield event

    async def snapshot(self) -> Snapshot:
        """See `Agent.snapshot`."""
        newest = sorted(self.made.values(), key=lambda session: session.updated, reverse=True)
        return Snapshot(workplaces=list(self.places), runs=await self.runs(), sessions=newest)

    async def runs(self) -> Runs:
        """See `Agent.runs`."""
        self._check()
        return Runs(statuses=dict(self.statuses), asks=list(self.open.values()))

    async def sessions(self, directory: str, limit: int, *, title: str = "") -> list[Session]:
        """See `Agent.sessions`."""
        self._check()
        self.asked.append(directory)
        await self.telling.wait()
        roots = (s for s in self.made.values() if s.directory == directory and not (s.parent_id or s.is_archived))
        found = [session for session in roots if title.casefold() in session.title.casefold()]
        return sorted(found, key=lambda session: session.updated, reverse=True)[:limit]

    async def session(self, session_id: str) -> Session:
        """See `Agent.session`."""
        self._check()
        if session_id not in self.made:
            raise NotFound(session_id)
        return self.made[session_id]

    async def messages(self, session_id: str, limit: int, **_options: object) -> list[Message]:
        """See `Agent.messages`."""
        self._check()
        return self.conversations[session_id][-limit:]

    async def message(self, session_id: str, message_id: str) -> Message:
        """See `Agent.message`; `whole` has what lists leave out."""
        self._check()
        if message_id not in self.whole:
            raise NotFound(message_id)
        return self.whole[message_id]

    async def turn(self, session_id: str, prompt_id: str) -> TurnRecord:
        """See `Agent.turn`."""
        messages = await self.messages(session_id, 1000)
        ids = [message.id for message in messages]
        if prompt_id not in ids:
            queued = self.queues and any(prompt.id == prompt_id for prompt in self.posted)
            return TurnRecord(is_stored=False, is_queued=queued)
        answers = tuple(m for m in messages[ids.index(prompt_id) :] if m.answers == prompt_id)
        return replace(self.extra, answers=answers)

    async def working_tree(self, directory: str) -> WorkingTree:
        """See `Agent.working_tree`."""
        self._check()
        return self.trees.get(directory, WorkingTree())

    async def turn_changes(self, session_id: str) -> tuple[FileChange, ...]:
        """See `Agent.turn_changes`."""
        self._check()
        return self.changed.get(session_id, ())

    async def todos(self, session_id: str) -> list[Todo]:
        """See `Agent.todos`."""
        if self.keeps_no_list is not None:
            raise self.keeps_no_list
        return self.to_do.get(session_id, [])

    async def agents(self, directory: str) -> list[str]:
        """See `Agent.agents`."""
        del directory
        self._check()
        return self.offers["agents"]

    async def models(self, directory: str) -> list[str]:
        """See `Agent.models`."""
        del directory
        self._check()
        return self.offers["models"]

    async def commands(self, directory: str) -> list[str]:
        """See `Agent.commands`."""
        del directory
        self._check()
        return self.offers["commands"]

    async def switch(self, session_id: str, agent: str, model: str) -> None:
        """See `Agent.switch`."""
        self._check()
        self.switched.append((session_id, agent, model))

    async def create(self, directory: str) -> Session:
        """See `Agent.create`."""
        self._check()
        self.tell(SessionChanged(session := self.add_session(directory, "begun from afar")))
        return session

    async def prompt(self, prompt: Prompt) -> None:
        """See `Agent.prompt`."""
        self._check()
        again = prompt in self.posted
        self.posted.append(prompt)
        if self.takes_in or (again and self.queues):
            self.take_in(prompt)

    async def run(self, name: str, prompt: Prompt) -> str:
        """See `Agent.run`."""
        self._check()
        self.ran.append((name, prompt.text))
        self.take_in(replace(prompt, text=f"{name}: {prompt.text}"))
        return prompt.id

    async def interrupt(self, session_id: str) -> None:
        """See `Agent.interrupt`."""
        self._set(session_id, None)

    async def reply(self, ask: Permission, decision: str, reason: str | None) -> None:
        """See `Agent.reply`."""
        self._settle(ask, decision)
        self.decisions.append((decision, reason))

    async def answer(self, ask: Question, answers: list[list[str]]) -> None:
        """See `Agent.answer`."""
        self._settle(ask, "answered")
        self.said.append(answers)

    async def decline(self, ask: Question) -> None:
        """See `Agent.decline`."""
        self._settle(ask, "declined")

    def _settle(self, ask: Ask, how: str) -> None:
        self._check()
        if self.open.pop(ask.id, None) is None:
            raise NotFound(ask.id)
        self.tell(AskSettled(ask.session_id, ask.id, how))
        if decided := self._decided.pop(ask.id, None):
            decided.set_result(how)

    async def show(self, session: Session) -> None:
        """See `Agent.show`."""

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble


class FakeAgents:
    """Agents by the names of their registrations: what finds out which kind listens at an endpoint."""

    def __init__(self, **agents: FakeAgent) -> None:
        self.agents = {name.replace("_", "-"): agent for name, agent in agents.items()}

    async def find(self, client: AgentClient) -> FakeAgent:
        """Return the agent of the endpoint that the client is for."""
        agent = self.agents.get(client.name)
        if agent is None or agent.trouble is not None:
            raise agent.trouble if agent and agent.trouble else Unreachable("nobody is there", refused=True)
        return agent


@asynccontextmanager
async def fake_fleet(**agents: FakeAgent) -> AsyncIterator[tuple[Fleet, FakeTransport]]:
    """Run a fleet over `agents`, each registered under its name (with - for _) in its first directory."""
    transport = FakeTransport()
    found = FakeAgents(**agents)
    async with Fleet(transport, ServerSettings(health_timeout=5), found.find).running() as fleet:
        for name, agent in found.agents.items():
            transport.announce(name, "http://127.0.0.1:9", directory=agent.places[0].directory)
        yield fleet, transport


def an_instance(*, rights: frozenset[str] | None = None) -> Instance:
    """Return an instance that is not connected, whose machine's owner lets `rights` through."""
    endpoint = Endpoint("laptop", "http://127.0.0.1:9", "laptop.example", "/")
    registered = Registered(
        endpoint,
        FakeTransport(),
        Credentials(None),
        1.0,
        find_agent=FakeAgents().find,
        taken=set,
        tell=lambda _instance, _event: None,
        adopt=lambda _endpoint, _directory: None,
    )
    registered.connection.rights = rights
    return registered.first
