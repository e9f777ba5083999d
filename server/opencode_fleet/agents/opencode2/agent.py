"""OpenCode 2 as an agent: its HTTP API, which is described where it surprises."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from opencode_common.text import quote
from opencode_fleet.agent import Capability
from opencode_fleet.agents.guard import GUARD_CHANGED, read_guard
from opencode_fleet.agents.http import LARGE_BODY, TooLarge
from opencode_fleet.agents.opencode2 import changes, wire
from opencode_fleet.agents.opencode2.asks import Form, Permission
from opencode_fleet.agents.opencode2.catalogue import Catalogue
from opencode_fleet.agents.opencode2.controls import Controls2
from opencode_fleet.agents.opencode2.conversation import messages_of, queued_turn, turn_of
from opencode_fleet.agents.opencode2.decoder import Decoder
from opencode_fleet.agents.opencode2.history import MAX_PAGE, History, cursor_of
from opencode_fleet.agents.opencode2.operations import BUILT_IN_VERSION, KNOWN, Operations
from opencode_fleet.agents.opencode2.prompts import post_prompt
from opencode_fleet.agents.opencode2.records import Calls, Records
from opencode_fleet.agents.opencode2.survey import SESSIONS_IN_SNAPSHOT, newest_sessions, workplaces
from opencode_fleet.agents.parallel import in_parallel
from opencode_fleet.agents.shapes import searching
from opencode_fleet.errors import BadAnswer, Forbidden, InstanceError, NotFound, Refused, Rejected
from opencode_fleet.model import Runs, Snapshot, Status, TurnRecord, is_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from opencode_fleet import model
    from opencode_fleet.agents.guard import GuardDocument
    from opencode_fleet.agents.http import AgentClient
    from opencode_fleet.changes import FileChange, Todo, WorkingTree
    from opencode_fleet.events import Event

HEARTBEAT_GRACE = 40.0
"""Seconds of silence after which the stream is given up; OpenCode 2 sends a heartbeat every 15."""
OPENAPI_BODY = 8 << 20
"""Bytes: its OpenAPI document has 270 KB today."""
MAX_LISTS = 5
FEW = 2
"""Opened directories that are sooner asked for their sessions each than found on a further page of all sessions."""
MAX_FILLED = 50
"""Opened directories that are asked for their sessions each, where the lists of all do not reach them."""
MAX_RUNNING = 2_000
MAX_ASKS = 500
MAX_LOOKED_UP = 200
"""Running sessions whose records are fetched: a subagent's ask is shown under the session that started it."""
FEW_MESSAGES = 10
MAX_LOOKED_THROUGH = 2_000
"""Entries, for a prompt or an old message."""


class OpenCode2:
    """The API of one OpenCode 2, behind the guard on its machine."""

    capabilities = frozenset(
        {Capability.WAKES, Capability.DIRECTORIES, Capability.QUEUES, Capability.SETTLES, Capability.OUTLIVES}
    )

    def __init__(self, client: AgentClient, guard: GuardDocument, operations: Operations) -> None:
        self.version = guard.version
        self.rights: frozenset[str] | None = frozenset(guard.rights)
        self._client = client
        self._calls = Calls(client, operations, guard)
        self._records = Records(self._calls)
        self._history = History(self._calls)
        self._catalogue = Catalogue(self._calls)
        self.controls = Controls2(self._calls, self._records)

    @classmethod
    async def connect(cls, client: AgentClient, guard: GuardDocument | None = None) -> OpenCode2:
        """Find out what the OpenCode 2 behind `guard` can do. Raises `InstanceError`."""
        if guard is None:
            raise client.bad("as an OpenCode 2 without a guard before it")
        _check(guard)
        operations = Operations.built_in(guard.version)
        if guard.version != BUILT_IN_VERSION and "openapi" in guard.verbs:
            # Refused, or not there: it is taken to be as it was when this was written.
            with suppress(Forbidden, NotFound):
                document = await client.call("GET", "/openapi.json", limit=OPENAPI_BODY)
                operations = Operations.read(guard.version, document)
        return cls(client, guard, operations)

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
        guard = await read_guard(self._client) or self._calls.guard
        _check(guard)
        self._calls.guard = guard
        self.version, self.rights = guard.version or self.version, frozenset(guard.rights)
        runs = await self.runs()
        sessions = await self._newest_sessions({each.path for each in guard.directories if each.opened})
        running = [session_id for session_id in runs.statuses if session_id not in sessions][:MAX_LOOKED_UP]
        for found in await in_parallel(running, self._session_if_there):
            if found is not None:
                sessions[found.id] = found
        places = workplaces(guard, sessions.values(), set(runs.statuses), time.time())
        kept = newest_sessions({place.directory for place in places}, sessions.values(), runs.statuses)
        return Snapshot(workplaces=places, runs=runs, sessions=kept)

    async def _newest_sessions(self, opened: set[str]) -> dict[str, model.Session]:
        """Return the newest sessions of the machine, and with them the newest of each opened directory."""
        sessions: dict[str, model.Session] = {}
        cursor, unseen = "", opened
        for _ in range(MAX_LISTS):
            page, cursor = await self._listed({"limit": str(MAX_PAGE)} | ({"cursor": cursor} if cursor else {}))
            sessions.update((session.id, session) for session in page)
            unseen = unseen - {session.directory for session in page}
            if not cursor or len(unseen) <= FEW:
                break
        if cursor:
            asked = sorted(unseen)[:MAX_FILLED]
            for more in await in_parallel(asked, lambda each: self.sessions(each, SESSIONS_IN_SNAPSHOT)):
                sessions.update((session.id, session) for session in more)
        return sessions

    async def runs(self) -> Runs:
        """See `Agent.runs`. What a model is asked again for is told by events alone; here it is busy."""
        active = await self._calls.data("session.active")
        if not isinstance(active, dict):
            raise self._client.bad("a list of what runs of another shape")
        running = list(islice((session_id for session_id in active if is_id(session_id)), MAX_RUNNING))
        asks = [ask for found in await in_parallel(running, self._asks_of) for ask in found]
        return Runs(statuses={session_id: Status() for session_id in running}, asks=asks[:MAX_ASKS])

    async def _asks_of(self, session_id: str) -> list[model.Ask]:
        asks: list[model.Ask] = []
        # It may have ended meanwhile, or its directory is gone; one that floods hides no other's asks.
        with suppress(NotFound, Rejected, TooLarge):
            told = await self._calls.data("session.permission.list", session_id, limit=LARGE_BODY)
            for each in self._client.many(Permission, told)[:MAX_ASKS]:
                ask = await self._records.permission(each)
                if ask is not None:
                    asks.append(ask)
            asks += [form.domain() for form in await self._forms(session_id)]
        return asks

    async def _forms(self, session_id: str) -> list[Form]:
        try:
            told = await self._calls.data("session.form.list", session_id, limit=LARGE_BODY)
        except Refused:
            return []  # this version has none
        return self._client.many(Form, told)[:MAX_ASKS]

    async def _session_if_there(self, session_id: str) -> model.Session | None:
        try:
            return await self.session(session_id)
        except NotFound:
            return None

    async def sessions(self, directory: str, limit: int, *, title: str = "") -> list[model.Session]:
        """See `Agent.sessions`."""
        params = {"directory": directory, "limit": str(min(limit, MAX_PAGE))} | searching(title)
        found, _ = await self._listed(params)
        return sorted(
            (session for session in found if session.directory == directory),
            key=lambda session: session.updated,
            reverse=True,
        )

    async def _listed(self, params: dict[str, str]) -> tuple[list[model.Session], str]:
        """Return sessions that are no subagent's and not archived, and the cursor to older ones, if there are any."""
        answer = await self._calls.call("session.list", params={**params, "parentID": "null"}, limit=LARGE_BODY)
        told = self._client.many(wire.Session, wire.member(answer, "data"))
        found = [session.domain() for session in told]
        kept = [session for session in found if session.parent_id is None and not session.is_archived]
        for session in kept:
            self._records.note(session)
        return kept, cursor_of(answer)

    async def session(self, session_id: str) -> model.Session:
        """See `Agent.session`."""
        return await self._records.fetch(session_id)

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
        # Not every entry is a message: each turn leaves a note of its end.
        most = min(2 * limit + 2, MAX_LOOKED_THROUGH)
        async for entries in self._history.newest(session_id, most, arrived):
            found = messages_of(entries[::-1], session_id)[-limit:]
            if len(found) == limit or (until is not None and until(found)):
                break
        return found

    async def message(self, session_id: str, message_id: str) -> model.Message:
        """See `Agent.message`. What OpenCode itself put in and says nothing is not found."""
        told = await self._calls.data("session.message.get", session_id, message_id, limit=LARGE_BODY)
        found = messages_of([self._client.one(wire.Message, told)], session_id)
        if not found:
            raise NotFound(f"{message_id} says nothing")
        return found[0]

    async def turn(self, session_id: str, prompt_id: str) -> TurnRecord:
        """See `Agent.turn`."""
        is_first = True
        async for entries in self._history.newest(session_id, MAX_LOOKED_THROUGH):
            record = turn_of(entries[::-1], session_id, prompt_id)
            if record is not None:
                return record
            if is_first and (queued := await self._queued(session_id, prompt_id)) is not None:
                return queued_turn(queued, entries[0] if entries else None)
            is_first = False
        return TurnRecord(is_stored=False)

    async def _queued(self, session_id: str, prompt_id: str) -> wire.InboxItem | None:
        try:
            told = await self._calls.data("session.inbox.list", session_id, limit=LARGE_BODY)
        except Refused:
            return None
        return next((item for item in self._client.many(wire.InboxItem, told) if item.id == prompt_id), None)

    # -- changes -------------------------------------------------------------------------------------------------

    async def working_tree(self, directory: str) -> WorkingTree:
        """See `Agent.working_tree`."""
        return await changes.working_tree(self._calls, directory)

    async def turn_changes(self, session_id: str) -> tuple[FileChange, ...]:
        """See `Agent.turn_changes`."""
        return await changes.turn_changes(self._calls, session_id)

    async def todos(self, session_id: str) -> list[Todo]:
        """See `Agent.todos`. OpenCode 2 keeps no such list."""
        del session_id
        return []

    # -- choices -------------------------------------------------------------------------------------------------

    async def agents(self, directory: str) -> list[str]:
        """See `Agent.agents`."""
        return await self._catalogue.agents(directory)

    async def models(self, directory: str) -> list[str]:
        """See `Agent.models`."""
        return await self._catalogue.models(directory)

    async def commands(self, directory: str) -> list[str]:
        """See `Agent.commands`."""
        return await self._catalogue.commands(directory)

    # -- acting --------------------------------------------------------------------------------------------------

    async def create(self, directory: str) -> model.Session:
        """See `Agent.create`. OpenCode 2 makes sessions in directories that are not there; their first use fails."""
        answer = await self._calls.call("session.create", body={"location": {"directory": directory}})
        session = self._client.one(wire.Session, wire.member(answer, "data")).domain()
        with _naming_gone(directory):
            await self._calls.data("session.permission.list", session.id, limit=LARGE_BODY)
        return self._records.note(session)

    async def switch(self, session_id: str, agent: str, model: str) -> None:
        """See `Agent.switch`."""
        await self.controls.switch(session_id, agent, model)

    async def prompt(self, prompt: model.Prompt) -> None:
        """See `Agent.prompt`. One that steers joins a running turn at its next step."""
        known = self._records.known(prompt.session_id)
        with _naming_gone(known.directory if known else ""):
            answer = await post_prompt(self._calls, prompt)
        accepted = self._client.one(wire.Accepted, wire.member(answer, "data"))
        # An id that was used before is answered as if it were new.
        if accepted.id != prompt.id or accepted.payload.text not in {None, prompt.text}:
            raise Refused(
                "another message was sent under this message's id before; nothing was sent now, send it anew"
            )

    async def run(self, name: str, prompt: model.Prompt) -> str:
        """See `Agent.run`. It takes no id: the message is the one that was not there before."""
        before = await self._newest_prompts(prompt.session_id)
        await self._calls.call("session.command", prompt.session_id, body={"name": name, "text": prompt.text})
        with suppress(InstanceError):
            after = await self._newest_prompts(prompt.session_id)
            return next((each for each in after if each not in before), "")
        return ""

    async def _newest_prompts(self, session_id: str) -> list[str]:
        """Return the ids of the newest prompts, those that wait and those that are told of, the newest last."""
        told = [message.id for message in await self.messages(session_id, FEW_MESSAGES) if message.role == "user"]
        waiting = await self._calls.data("session.inbox.list", session_id, limit=LARGE_BODY)
        return told + [item.id for item in self._client.many(wire.InboxItem, waiting)]

    async def interrupt(self, session_id: str) -> None:
        """See `Agent.interrupt`. Subagents in the background are not ended with what started them."""
        await self._calls.call("session.interrupt", session_id, body={})
        # What was asked for is done; the rest is for those that it left behind.
        with suppress(InstanceError):
            active = await self._calls.data("session.active")
            for other in islice(active if isinstance(active, dict) else (), MAX_LOOKED_UP):
                if is_id(other) and other != session_id and await self._is_child(other, session_id):
                    await self._calls.call("session.interrupt", other, body={})

    async def _is_child(self, session_id: str, parent_id: str) -> bool:
        record = self._records.known(session_id) or await self._session_if_there(session_id)
        return record is not None and record.parent_id == parent_id

    async def reply(self, ask: model.Permission, decision: str, reason: str | None) -> None:
        """See `Agent.reply`. A reason would be lost there: whoever drives it sends it as a message."""
        if decision == "always" and ask.always_refused:
            raise Refused(f"`always` is not possible here: {ask.always_refused}. Nothing was settled")
        body = {self._calls.choice("session.permission.reply"): decision}
        await self._settle("session.permission.reply", ask, body)

    async def answer(self, ask: model.Question, answers: list[list[str]]) -> None:
        """See `Agent.answer`. Which type each field takes is told by the form itself."""
        form = next((form for form in await self._forms(ask.session_id) if form.id == ask.id), None)
        if form is None:
            raise NotFound(f"{ask.id} is settled already")
        await self._settle("session.form.reply", ask, {"answer": form.answer(answers)})

    async def decline(self, ask: model.Question) -> None:
        """See `Agent.decline`."""
        await self._settle("session.form.cancel", ask, None)

    async def _settle(self, name: str, ask: model.Ask, body: dict[str, Any] | None) -> None:
        try:
            await self._calls.call(name, ask.session_id, ask.id, body=body)
        except Rejected as error:
            if error.status == 409:
                raise NotFound(f"{ask.id} is settled already") from None
            raise

    async def show(self, session: model.Session) -> None:
        """Do nothing: none of its screens can be told which session to show."""

    # -- events --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Event | None]]:
        """See `Agent.events`."""
        async with self._client.stream(self._calls.path("event.subscribe"), silence=HEARTBEAT_GRACE) as raw:
            first = await anext(raw, None)
            if not isinstance(first, dict) or first.get("type") != "server.connected":
                raise self._client.bad("no proper event stream")
            yield self._decoded(raw)

    async def _decoded(self, raw: AsyncIterator[object]) -> AsyncIterator[Event | None]:
        decoder = Decoder(self._records)
        async for event in raw:
            if event is None or event == GUARD_CHANGED:
                yield None
                continue
            try:
                decoded = await decoder.decode(event)
            except InstanceError:
                yield None  # what it names could not be fetched
                continue
            for each in decoded:
                yield each


def _check(guard: GuardDocument) -> None:
    """Make sure that the guard lets us see what there is. Raises `BadAnswer`."""
    try:
        for known in KNOWN:
            if known.is_vital:
                guard.require(known.verb)
    except Refused as error:
        raise BadAnswer(str(error)) from None


@contextmanager
def _naming_gone(directory: str) -> Iterator[None]:
    """Say so where a directory is gone: OpenCode 2 answers an error without a word on whatever needs it."""
    try:
        yield
    except Rejected as error:
        if error.status != 500 or not error.is_silent:
            raise
        which = quote(directory, 300) if directory else "of that session"
        message = f"the directory {which} is gone on that machine: make it again, or use another one"
        raise Rejected(message, status=error.status) from None
