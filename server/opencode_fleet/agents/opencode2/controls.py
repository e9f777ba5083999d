"""What can be done with a session of OpenCode 2 beside its turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_fleet.agents.guard import close_directory, open_directory
from opencode_fleet.agents.http import LARGE_BODY
from opencode_fleet.agents.opencode2 import wire
from opencode_fleet.errors import Refused
from opencode_fleet.prompt_ids import new_prompt_id

if TYPE_CHECKING:
    from opencode_fleet import model
    from opencode_fleet.agents.opencode2.records import Calls, Records


class Controls2:
    """See `Controls`. A session's record holds a diff of all that was taken back in it."""

    def __init__(self, calls: Calls, records: Records) -> None:
        self._calls = calls
        self._records = records

    async def compact(self, session: model.Session) -> None:
        """See `Controls.compact`. It is accepted at once, and runs as a turn does."""
        await self._calls.call("session.compact", session.id, body={"id": new_prompt_id()})

    async def fork(self, session_id: str) -> model.Session:
        """See `Controls.fork`."""
        answer = await self._calls.call("session.fork", session_id, body={}, limit=LARGE_BODY)
        session = self._calls.client.one(wire.Session, wire.member(answer, "data")).domain()
        return self._records.note(session)

    async def undo(self, session_id: str, message_id: str) -> None:
        """See `Controls.undo`."""
        body = {"messageID": message_id, "files": True}
        await self._calls.call("session.revert.stage", session_id, body=body, limit=LARGE_BODY)

    async def redo(self, session_id: str) -> None:
        """See `Controls.redo`."""
        await self._calls.call("session.revert.clear", session_id)

    async def rename(self, session_id: str, title: str) -> None:
        """See `Controls.rename`."""
        await self._calls.call("session.update", session_id, body={"title": title})

    async def archive(self, session_id: str) -> None:
        """Refuse: it tells when a session was archived, and has no call that does it."""
        raise Refused("OpenCode 2 cannot put sessions away from afar. Nothing was done")

    async def switch(self, session_id: str, agent: str, model: str) -> None:
        """See `Controls.switch`. OpenCode 2 takes any name here, and fails at the next prompt."""
        if agent:
            await self._calls.call("session.switchAgent", session_id, body={"agent": agent})
        if model:
            provider, _, name = model.partition("/")
            reference = {"id": name, "providerID": provider}
            await self._calls.call("session.switchModel", session_id, body={"model": reference})

    async def open(self, directory: str) -> model.Opened:
        """See `Controls.open`."""
        return await open_directory(self._calls.client, self._calls.guard, directory)

    def check_close(self, directory: str) -> None:
        """See `Controls.check_close`."""
        self._calls.guard.check_close(directory)

    async def close(self, directory: str) -> bool:
        """See `Controls.close`."""
        return await close_directory(self._calls.client, self._calls.guard, directory)
