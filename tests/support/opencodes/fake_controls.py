"""What can be done with a scripted agent's sessions beside their turns."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from opencode_fleet.errors import Refused
from opencode_fleet.model import Opened, Workplace

if TYPE_CHECKING:
    from opencode_fleet.errors import InstanceError
    from opencode_fleet.model import Session
    from support.opencodes.fake_agent import FakeAgent


class FakeControls:
    """Does it in memory. `gate` holds all up before they are done."""

    def __init__(self, agent: FakeAgent) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.breaks: InstanceError | None = None
        """What is raised once something is done, as where its answer is lost."""
        self.is_of_a_launcher = False
        """Whether what it works in was opened at the desk."""
        self.did: list[str] = []
        """What was done, as words and ids."""
        self._agent = agent

    async def compact(self, session: Session) -> None:
        """See `Controls.compact`."""
        await self._do(f"compact {session.id}")

    async def fork(self, session_id: str) -> Session:
        """See `Controls.fork`."""
        original = self._agent.made[session_id]
        copy = self._agent.add_session(original.directory, f"{original.title} (fork)")
        await self._do(f"fork {session_id}")
        return copy

    async def undo(self, session_id: str, message_id: str) -> None:
        """See `Controls.undo`."""
        self._change(session_id, undone_from=message_id)
        await self._do(f"undo {session_id} {message_id}")

    async def redo(self, session_id: str) -> None:
        """See `Controls.redo`."""
        self._change(session_id, undone_from="")
        await self._do(f"redo {session_id}")

    async def rename(self, session_id: str, title: str) -> None:
        """See `Controls.rename`."""
        self._change(session_id, title=title)
        await self._do(f"rename {session_id} {title}")

    async def archive(self, session_id: str) -> None:
        """See `Controls.archive`."""
        self._change(session_id, is_archived=True)
        await self._do(f"archive {session_id}")

    async def switch(self, session_id: str, agent: str, model: str) -> None:
        """See `Controls.switch`."""
        await self._agent.switch(session_id, agent, model)
        await self._do(f"switch {session_id} {agent}{model}")

    async def open(self, directory: str) -> Opened:
        """See `Controls.open`; `~` is /home/ann."""
        path = directory.replace("~", "/home/ann", 1)
        is_new = all(place.directory != path for place in self._agent.places)
        if is_new:
            self._agent.places.append(Workplace(directory=path))
        await self._do(f"open {path}")
        self._agent.tell(None)
        return Opened(path, is_new)

    def check_close(self, directory: str) -> None:
        """See `Controls.check_close`."""
        if self.is_of_a_launcher:
            raise Refused(f"{directory} was not opened from afar")

    async def close(self, directory: str) -> bool:
        """See `Controls.close`."""
        self._agent.places = [place for place in self._agent.places if place.directory != directory]
        await self._do(f"close {directory}")
        self._agent.tell(None)
        return False

    def _change(self, session_id: str, **fields: object) -> None:
        self._agent.made[session_id] = replace(self._agent.made[session_id], **fields)  # type: ignore[arg-type] # as given

    async def _do(self, what: str) -> None:
        await self.gate.wait()
        self.did.append(what)
        if self.breaks is not None:
            raise self.breaks
