"""What can be done with a session of OpenCode 1 beside its turns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opencode_fleet.agents.http import LARGE_BODY
from opencode_fleet.agents.opencode1.wire import Session
from opencode_fleet.agents.shapes import MILLISECONDS
from opencode_fleet.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opencode_fleet import model
    from opencode_fleet.agents.http import AgentClient

COMPACT_TIMEOUT = 110.0
"""Seconds: OpenCode 1 answers when the summary is written; the guard gives up after 120."""
_AT_THE_DESK = (
    "Start opencode-connected there, or install OpenCode 2 and run `opencode-connected service install`. "
    "Nothing was opened"
)


class Controls1:
    """See `Controls`. A session's record holds a diff of all that was taken back in it."""

    def __init__(self, client: AgentClient) -> None:
        self._client = client

    async def compact(self, session: model.Session) -> None:
        """See `Controls.compact`. It wants to be told the model that writes the summary."""
        provider, slash, name = session.model.partition("/")
        if not slash:
            raise Refused(
                f"session {session.id} has no model yet, so there is nothing to compact it with; send it a message "
                "first. Nothing was done"
            )
        body = {"providerID": provider, "modelID": name}
        await self._client.call("POST", f"/session/{session.id}/summarize", body=body, timeout=COMPACT_TIMEOUT)

    async def fork(self, session_id: str) -> model.Session:
        """See `Controls.fork`."""
        answer = await self._change("POST", f"/session/{session_id}/fork", {})
        return self._client.one(Session, answer).domain()

    async def undo(self, session_id: str, message_id: str) -> None:
        """See `Controls.undo`."""
        await self._change("POST", f"/session/{session_id}/revert", {"messageID": message_id})

    async def redo(self, session_id: str) -> None:
        """See `Controls.redo`."""
        await self._change("POST", f"/session/{session_id}/unrevert", {})

    async def rename(self, session_id: str, title: str) -> None:
        """See `Controls.rename`."""
        await self._change("PATCH", f"/session/{session_id}", {"title": title})

    async def archive(self, session_id: str) -> None:
        """See `Controls.archive`."""
        archived = int(time.time() * MILLISECONDS)
        await self._change("PATCH", f"/session/{session_id}", {"time": {"archived": archived}})

    async def switch(self, session_id: str, agent: str, model: str) -> None:
        """Refuse: a session there has what its last message named."""
        del session_id
        what = "agent" if agent else "model"
        raise Refused(
            f"OpenCode 1 takes the {what} with a message: `send` one with {what}={(agent or model)!r}, and its "
            "session keeps it. Nothing was done"
        )

    async def open(self, directory: str) -> model.Opened:
        """Refuse: each directory has a process of its own, and nobody there would start another one."""
        del directory
        raise Refused(f"OpenCode 1 runs in one directory, so no other one can be opened there. {_AT_THE_DESK}")

    def check_close(self, directory: str) -> None:
        """Refuse, as `open` does."""
        del directory
        raise Refused("OpenCode 1 ends at the desk, where it was started. Nothing was closed")

    async def close(self, directory: str) -> bool:
        """Refuse, too."""
        self.check_close(directory)
        return False

    async def _change(self, method: str, path: str, body: Mapping[str, object]) -> object:
        return await self._client.call(method, path, body=body, limit=LARGE_BODY)
