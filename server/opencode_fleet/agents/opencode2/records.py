"""What the agent and its event stream look up: session records and tools' inputs, remembered within bounds."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_fleet.agents.http import LARGE_BODY, SMALL_BODY, TooLarge
from opencode_fleet.agents.opencode2 import wire
from opencode_fleet.agents.opencode2.asks import details_of
from opencode_fleet.errors import NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from opencode_fleet import model
    from opencode_fleet.agents.guard import GuardDocument
    from opencode_fleet.agents.http import AgentClient, HttpAnswer
    from opencode_fleet.agents.opencode2.asks import Details, Permission
    from opencode_fleet.agents.opencode2.operations import Operation, Operations

MAX_SESSIONS = 2_000
MAX_INPUTS = 200
MAX_INPUT_CHARACTERS = 2_000_000


class Calls:
    """Calls an agent's operations by their names, if the guard before it knows them."""

    def __init__(self, client: AgentClient, operations: Operations, guard: GuardDocument) -> None:
        self.client = client
        self.guard = guard
        self._operations = operations

    def path(self, name: str) -> str:
        """Return the path of an operation that needs no ids. Raises `Refused`."""
        return self._operations.find(name).fill(())

    def choice(self, name: str) -> str:
        """Return the key of an operation's body that has had several names. Raises `Refused`."""
        return self._operations.find(name).choice

    async def call(
        self,
        name: str,
        *ids: str,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        limit: int = SMALL_BODY,
        timeout: float | None = None,  # noqa: ASYNC109 - of silence, see `AgentClient.call`
    ) -> object:
        """Call an operation and return its JSON.

        Raises:
            Refused: this version, or the guard before it, does not have it.
            InstanceError: see `errors`.
        """
        operation = self._find(name)
        path = operation.fill(ids)
        return await self.client.call(operation.method, path, params=params, body=body, limit=limit, timeout=timeout)

    async def page(
        self, name: str, *ids: str, params: Mapping[str, str], limit: int, arrived: Callable[[int], None] | None
    ) -> HttpAnswer:
        """Call an operation that lists; `arrived` is told of bytes as they come. Raises as `call` does."""
        operation = self._find(name)
        path = operation.fill(ids)
        return await self.client.ask(operation.method, path, params=params, limit=limit, arrived=arrived)

    def _find(self, name: str) -> Operation:
        operation = self._operations.find(name)
        self.guard.require(operation.verb)
        return operation

    async def data(
        self, name: str, *ids: str, params: Mapping[str, str] | None = None, limit: int = SMALL_BODY
    ) -> object:
        """Call an operation that only tells, and return what it tells, out of its envelope."""
        return wire.member(await self.call(name, *ids, params=params, limit=limit), "data")


class Records:
    """Session records and tools' inputs of one agent."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._sessions: OrderedDict[str, model.Session] = OrderedDict()
        self._inputs: OrderedDict[tuple[str, str], Details] = OrderedDict()
        self._size = 0

    def known(self, session_id: str) -> model.Session | None:
        """Return a session's record as last heard; None if it is not remembered."""
        return self._sessions.get(session_id)

    def note(self, session: model.Session) -> model.Session:
        """Remember a session's record, and return it."""
        self._sessions[session.id] = session
        self._sessions.move_to_end(session.id)
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def forget(self, session_id: str) -> None:
        """Forget a session that is gone."""
        self._sessions.pop(session_id, None)

    async def fetch(self, session_id: str) -> model.Session:
        """Fetch a session's record anew. Raises `NotFound`."""
        answer = await self._calls.data("session.get", session_id, limit=LARGE_BODY)
        return self.note(self._calls.client.one(wire.Session, answer).domain())

    # -- tools' inputs -------------------------------------------------------------------------------------------

    def note_input(self, message_id: str, call_id: str, arguments: dict[str, Any]) -> None:
        """Remember what a tool was called with, until it ended."""
        self.drop_input(message_id, call_id)
        details = details_of(arguments)
        self._inputs[message_id, call_id] = details
        self._size += _size(details)
        while len(self._inputs) > MAX_INPUTS or self._size > MAX_INPUT_CHARACTERS:
            self._size -= _size(self._inputs.popitem(last=False)[1])

    def drop_input(self, message_id: str, call_id: str) -> None:
        """Forget a tool call that has ended."""
        self._size -= _size(self._inputs.pop((message_id, call_id), ()))

    async def permission(self, ask: Permission) -> model.Permission | None:
        """Return an ask in the fleet's words, with the whole input of its tool; None: it is gone meanwhile.

        Raises:
            InstanceError: what it is about could not be fetched.
        """
        try:
            arguments = None if ask.changes() else await self._input(ask)
            session = self.known(ask.session_id) or await self.fetch(ask.session_id)
        except NotFound:
            return None
        return ask.domain(arguments, session.project)

    async def _input(self, ask: Permission) -> Details | None:
        if ask.source is None:
            return None
        known = self._inputs.get((ask.source.message_id, ask.source.id))
        if known is not None:
            return known
        with suppress(TooLarge, Refused):
            answer = await self._calls.data(
                "session.message.get", ask.session_id, ask.source.message_id, limit=LARGE_BODY
            )
            for part in self._calls.client.one(wire.Message, answer).content:
                if part.type == "tool" and part.id == ask.source.id:
                    return details_of(part.state.input)
        return None


def _size(details: Details) -> int:
    return sum(len(label) + len(text) for label, text in details)
