"""OpenCode 1 as an agent: its HTTP API, which is described where it surprises."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from opencode_fleet.agent import Capability
from opencode_fleet.agents.guard import GUARD_CHANGED
from opencode_fleet.agents.http import LARGE_BODY, TooLarge
from opencode_fleet.agents.opencode1 import changes
from opencode_fleet.agents.opencode1.asks import Permission, Question
from opencode_fleet.agents.opencode1.controls import Controls1
from opencode_fleet.agents.opencode1.decoder import Decoder
from opencode_fleet.agents.opencode1.prompts import prompt_parts
from opencode_fleet.agents.opencode1.wire import (
    Agent,
    Command,
    Health,
    Location,
    Message,
    Providers,
    Session,
    Status,
)
from opencode_fleet.agents.pages import PageSize
from opencode_fleet.agents.prompting import naming_files, prompt_timeout
from opencode_fleet.agents.shapes import searching
from opencode_fleet.errors import InstanceError, NotFound
from opencode_fleet.model import Runs, Snapshot, TurnRecord, Workplace, is_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from opencode_fleet import model
    from opencode_fleet.agents.guard import GuardDocument
    from opencode_fleet.agents.http import AgentClient, HttpAnswer
    from opencode_fleet.changes import FileChange, Todo, WorkingTree
    from opencode_fleet.events import Event

HEARTBEAT_GRACE = 13.0
"""Seconds of silence after which the stream is given up; OpenCode 1 sends a heartbeat every 10."""
SESSIONS_IN_SNAPSHOT = 20
MAX_LOOKED_UP = 200
"""Running sessions whose records are fetched: a subagent's ask is shown under the session that started it."""
MESSAGES_LOOKED_AT = 50
COMMAND_WITHIN = 60.0
"""Seconds in which a command has run the shells of its template and become a message."""
COMMAND_LOOKS_APART = 0.25
MAX_PAGE = 200
MAX_PAGES = 60
MAX_ASKS_CHECKED = 50
"""Asks of running sessions for which is looked whether the tool call that asked still waits."""


class OpenCode1:
    """The API of one OpenCode 1. It hosts a directory; a guard before it shows no other."""

    capabilities = frozenset({Capability.SCREEN, Capability.REASONS, Capability.ARCHIVES, Capability.LISTS})

    def __init__(self, client: AgentClient, version: str, guard: GuardDocument | None = None) -> None:
        self.version = version
        self.rights = frozenset(guard.rights) if guard else None
        self.controls = Controls1(client)
        self._guard = guard
        self._client = client
        self._directory = ""
        self._page_size = PageSize(MAX_PAGE)
        self._has_pages = True
        """Whether it tells how to go on after a page; before OpenCode 1.2 it does not, nor do the first guards."""

    @classmethod
    async def connect(cls, client: AgentClient, guard: GuardDocument | None = None) -> OpenCode1:
        """Make sure that an OpenCode 1 answers. Raises `InstanceError`."""
        answer = await client.call("GET", "/global/health", timeout=client.health_timeout)
        return cls(client, client.one(Health, answer).version, guard)

    @property
    def clock(self) -> float | None:
        """See `Agent.clock`."""
        return self._client.clock

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    # -- state ---------------------------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """See `Agent.snapshot`."""
        # One after the other, on the one connection that stays: several at once would each open another, which costs
        # as many round trips and, over a large fleet, much memory.
        directory = await self._own_directory()
        runs = await self.runs()
        sessions = await self.sessions(directory, SESSIONS_IN_SNAPSHOT)
        known = {session.id for session in sessions}
        for session_id in [busy for busy in runs.statuses if busy not in known][:MAX_LOOKED_UP]:
            with suppress(NotFound):
                sessions.append(await self.session(session_id))
        return Snapshot(workplaces=[Workplace(directory=directory)], runs=runs, sessions=sessions)

    async def runs(self) -> Runs:
        """See `Agent.runs`. Waiting for a person is busy too."""
        params = {"directory": await self._own_directory()}
        answer = await self._client.call("GET", "/session/status", params=params)
        if not isinstance(answer, dict):
            raise self._client.bad("a status list of another shape")
        found = {key: self._client.one(Status, value).domain() for key, value in answer.items() if is_id(key)}
        statuses = {key: status for key, status in found.items() if status is not None}
        permissions = await self._client.call("GET", "/permission", params=params, limit=LARGE_BODY)
        questions = await self._client.call("GET", "/question", params=params, limit=LARGE_BODY)
        asks: list[model.Ask] = [ask.domain() for ask in self._client.many(Permission, permissions)]
        asks += [ask.domain() for ask in self._client.many(Question, questions)]
        return Runs(statuses=statuses, asks=await self._living(asks, statuses))

    async def _living(self, asks: list[model.Ask], statuses: dict[str, model.Status]) -> list[model.Ask]:
        """Leave out asks whose tool call has ended: OpenCode 1 goes on listing those of an aborted turn."""
        dead: set[str] = set()
        checked = [ask for ask in asks if ask.message_id and ask.session_id in statuses][:MAX_ASKS_CHECKED]
        for ask in checked:
            try:
                message = await self.message(ask.session_id, ask.message_id)
            except NotFound:
                dead.add(ask.id)
                continue
            if message.completed is not None or message.error:
                dead.add(ask.id)
        return [ask for ask in asks if ask.id not in dead]

    async def _own_directory(self) -> str:
        if not self._directory:
            self._directory = self._client.one(Location, await self._client.call("GET", "/path")).directory
        return self._directory

    async def sessions(self, directory: str, limit: int, *, title: str = "") -> list[model.Session]:
        """See `Agent.sessions`."""
        params = {"directory": directory, "roots": "true", "limit": str(limit)} | searching(title)
        found = self._client.many(
            Session, await self._client.call("GET", "/session", params=params, limit=LARGE_BODY)
        )
        sessions = [session.domain() for session in found]
        # Without a match the server lists the whole project; a subagent's or an archived one is never ours to drive.
        kept = [s for s in sessions if s.directory == directory and s.parent_id is None and not s.is_archived]
        return sorted(kept, key=lambda session: session.updated, reverse=True)

    async def session(self, session_id: str) -> model.Session:
        """See `Agent.session`."""
        told = await self._client.call("GET", f"/session/{session_id}", limit=LARGE_BODY)
        return self._client.one(Session, told).domain()

    async def messages(
        self,
        session_id: str,
        limit: int,
        *,
        until: Callable[[list[model.Message]], bool] | None = None,
        arrived: Callable[[int], None] | None = None,
    ) -> list[model.Message]:
        """See `Agent.messages`."""
        found: list[model.Message] = []
        seen = size = 0
        cursor = ""
        for _ in range(MAX_PAGES):
            try:
                page = await self._page(session_id, limit - seen, cursor, arrived)
            except TooLarge:
                if not found:
                    raise
                break  # one by itself, and none before it can be had
            known = {message.id for message in found}
            entries = [entry.domain() for entry in self._client.many(Message, page.value)]
            found = [*(message for message in entries if message.id not in known), *found]
            told = _length(page.value)
            seen, size = seen + told, size + page.size
            if seen >= limit or size >= LARGE_BODY or (until is not None and until(found)):
                break
            if not told or page.cursor in {"", cursor}:
                break
            cursor = page.cursor
        return found

    async def _page(
        self, session_id: str, wanted: int, cursor: str, arrived: Callable[[int], None] | None
    ) -> HttpAnswer:
        """Fetch the newest messages before `cursor`: as many of those that are wanted as come in good time."""
        count = self._page_size.of(wanted) if self._has_pages else wanted
        page = await self._fetch(session_id, count, cursor, arrived)
        told = _length(page.value)
        if page.cursor or told != count or count == wanted:
            return page
        # These are all that there are, or it does not tell how to go on.
        whole = await self._fetch(session_id, wanted, cursor, arrived)
        self._has_pages = _length(whole.value) <= told
        return whole

    async def _fetch(
        self, session_id: str, count: int, cursor: str, arrived: Callable[[int], None] | None
    ) -> HttpAnswer:
        while True:
            params = {"limit": str(count)} | ({"before": cursor} if cursor else {})
            path = f"/session/{session_id}/message"
            try:
                page = await self._client.ask("GET", path, params=params, limit=LARGE_BODY, arrived=arrived)
            except TooLarge:
                if count <= 1:
                    raise
                self._page_size.was_too_large(count)
                count = self._page_size.of(count)
            else:
                self._page_size.took(_length(page.value), page.seconds)
                return page

    async def message(self, session_id: str, message_id: str) -> model.Message:
        """See `Agent.message`."""
        path = f"/session/{session_id}/message/{message_id}"
        return self._client.one(Message, await self._client.call("GET", path, limit=LARGE_BODY)).domain()

    async def turn(self, session_id: str, prompt_id: str) -> TurnRecord:
        """See `Agent.turn`."""
        messages = await self.messages(
            session_id, MESSAGES_LOOKED_AT, until=lambda found: any(message.id == prompt_id for message in found)
        )
        ids = [message.id for message in messages]
        if prompt_id in ids:
            messages = messages[ids.index(prompt_id) + 1 :]
        elif not prompt_id or all(message.answers != prompt_id for message in messages):
            return TurnRecord(is_stored=bool(prompt_id) and await self._has(session_id, prompt_id))
        next_one = next((index for index, message in enumerate(messages) if message.role == "user"), len(messages))
        answers = _answers(messages[:next_one])
        # A prompt that comes while another waits joins its turn, and one answer is to both.
        is_shared = next_one < len(messages) and not (answers and answers[-1].ended in {"well", "failed"})
        return TurnRecord(is_stored=True, answers=_answers(messages) if is_shared else answers, is_shared=is_shared)

    async def _has(self, session_id: str, message_id: str) -> bool:
        with suppress(NotFound):
            await self._client.call("GET", f"/session/{session_id}/message/{message_id}", limit=LARGE_BODY)
            return True
        return False

    # -- changes -------------------------------------------------------------------------------------------------

    async def working_tree(self, directory: str) -> WorkingTree:
        """See `Agent.working_tree`."""
        return await changes.working_tree(self._client, directory)

    async def turn_changes(self, session_id: str) -> tuple[FileChange, ...]:
        """See `Agent.turn_changes`."""
        messages = await self.messages(
            session_id, MESSAGES_LOOKED_AT, until=lambda found: any(map(_is_prompt, found))
        )
        prompt = next(filter(_is_prompt, reversed(messages)), None)
        return await changes.turn_changes(self._client, session_id, prompt.id) if prompt else ()

    async def todos(self, session_id: str) -> list[Todo]:
        """See `Agent.todos`."""
        return await changes.todos(self._client, session_id)

    # -- choices -------------------------------------------------------------------------------------------------

    async def agents(self, directory: str) -> list[str]:
        """See `Agent.agents`."""
        told = await self._client.call("GET", "/agent", params={"directory": directory})
        return [each.name for each in self._client.many(Agent, told) if each.is_for_people]

    async def models(self, directory: str) -> list[str]:
        """See `Agent.models`. The answer tells much of each model, and where no guard is, keys too."""
        if self._guard is not None:
            self._guard.require("model")
        told = await self._client.call("GET", "/config/providers", params={"directory": directory}, limit=LARGE_BODY)
        return self._client.one(Providers, told).names()

    async def commands(self, directory: str) -> list[str]:
        """See `Agent.commands`."""
        told = await self._client.call("GET", "/command", params={"directory": directory}, limit=LARGE_BODY)
        return [each.name for each in self._client.many(Command, told)]

    # -- acting --------------------------------------------------------------------------------------------------

    async def create(self, directory: str) -> model.Session:
        """See `Agent.create`."""
        answer = await self._client.call("POST", "/session", params={"directory": directory}, body={})
        return self._client.one(Session, answer).domain()

    async def switch(self, session_id: str, agent: str, model: str) -> None:
        """Do nothing: a session goes on with what its next prompt names."""

    async def prompt(self, prompt: model.Prompt) -> None:
        """See `Agent.prompt`. What a prompt does not name is set to its default in the session, for good."""
        body: dict[str, Any] = {
            "messageID": prompt.id,
            "parts": prompt_parts(prompt),
            **await self._manner(prompt),
        }
        path = f"/session/{prompt.session_id}/prompt_async"
        with naming_files(prompt):
            await self._client.call("POST", path, body=body, timeout=prompt_timeout(prompt))

    async def run(self, name: str, prompt: model.Prompt) -> str:
        """See `Agent.run`. The call lasts as long as the turn, which does not need it: its message tells sooner."""
        if self._guard is not None:
            self._guard.require("command")
        manner = await self._manner(prompt)
        if chosen := manner.pop("model", None):
            manner["model"] = f"{chosen['providerID']}/{chosen['modelID']}"
        body = {"messageID": prompt.id, "command": name, "arguments": prompt.text, **manner}
        call = self._client.call(
            "POST", f"/session/{prompt.session_id}/command", body=body, limit=LARGE_BODY, timeout=COMMAND_WITHIN
        )
        posting = asyncio.create_task(call)
        try:
            while not (await asyncio.wait({posting}, timeout=COMMAND_LOOKS_APART))[0]:
                with suppress(InstanceError):  # it has only not been seen yet
                    await self.message(prompt.session_id, prompt.id)
                    return prompt.id
            await posting
        finally:
            posting.cancel()
        return prompt.id

    async def _manner(self, prompt: model.Prompt) -> dict[str, Any]:
        """Return the agent, model and variant that the prompt's session is in, as a prompt names them."""
        agent, chosen, variant = prompt.agent, prompt.model, prompt.variant
        if not (agent and chosen):
            # Before 1.18 only the messages tell.
            messages = await self.messages(prompt.session_id, 10, until=lambda found: any(map(_tells_manner, found)))
            message = next(filter(_tells_manner, reversed(messages)), None)
            if message is not None:
                agent = agent or message.agent
                chosen, variant = (chosen, variant) if chosen else (message.model, message.variant)
        provider, slash, name = chosen.partition("/")
        manner: dict[str, Any] = {"agent": agent} if agent else {}
        if slash:
            manner["model"] = {"providerID": provider, "modelID": name}
        if variant:
            manner["variant"] = variant
        return manner

    async def interrupt(self, session_id: str) -> None:
        """See `Agent.interrupt`."""
        await self._client.call("POST", f"/session/{session_id}/abort", body={})

    async def reply(self, ask: model.Permission, decision: str, reason: str | None) -> None:
        """See `Agent.reply`."""
        body = {"reply": decision} | ({"message": reason} if reason else {})
        await self._settle(f"/permission/{ask.id}/reply", body)

    async def answer(self, ask: model.Question, answers: list[list[str]]) -> None:
        """See `Agent.answer`."""
        await self._settle(f"/question/{ask.id}/reply", {"answers": answers})

    async def decline(self, ask: model.Question) -> None:
        """See `Agent.decline`."""
        await self._settle(f"/question/{ask.id}/reject", {})

    async def _settle(self, path: str, body: dict[str, Any]) -> None:
        await self._client.call("POST", path, params={"directory": await self._own_directory()}, body=body)

    async def show(self, session: model.Session) -> None:
        """Say on the screen that the session was begun. To switch to it would take it from whoever types there."""
        message = "A new session was begun from afar. It is in the list of sessions."
        await self._client.call("POST", "/tui/show-toast", body={"message": message, "variant": "info"})

    # -- events --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Event | None]]:
        """See `Agent.events`."""
        params = {"directory": await self._own_directory()}
        async with self._client.stream("/event", params, silence=HEARTBEAT_GRACE) as raw:
            first = await anext(raw, None)
            if not isinstance(first, dict) or first.get("type") != "server.connected":
                raise self._client.bad("no proper event stream")
            yield self._decoded(raw)

    async def _decoded(self, raw: AsyncIterator[object]) -> AsyncIterator[Event | None]:
        decoder = Decoder()
        async for event in raw:
            if event is None or event == GUARD_CHANGED:
                yield None
                continue
            for decoded in decoder.decode(event):
                yield decoded


def _answers(messages: list[model.Message]) -> tuple[model.Message, ...]:
    return tuple(message for message in messages if message.role == "assistant" and not message.is_summary)


def _is_prompt(message: model.Message) -> bool:
    return message.role == "user"


def _tells_manner(message: model.Message) -> bool:
    return message.role == "user" and bool(message.agent)


def _length(page: object) -> int:
    return len(page) if isinstance(page, list) else 0
