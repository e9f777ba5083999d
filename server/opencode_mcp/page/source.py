"""The OpenCode server as the pages see it, in this process. See `opencode_pages.parts.Source`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from opencode_common.text import bare
from opencode_fleet.errors import FleetError
from opencode_mcp.caller import Caller
from opencode_mcp.deciding import decide
from opencode_mcp.documents import Documents, NoSuchAsk
from opencode_pages.parts import NotDecided, NotThere, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_mcp.face import Face
    from opencode_pages.documents import AskDocument, InboxDocument
    from opencode_pages.parts import PageDecision, Visitor

LOOK_SECONDS: Final = 2.0
"""What the journal does not tell, as that a machine went away a moment ago, is seen by looking."""


class FaceSource:
    """Documents and decisions straight from a face."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._documents = Documents(face.beside())
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Tell of no changes any more: whoever follows them ends."""
        self._closing.set()

    async def inbox(self, visitor: Visitor) -> InboxDocument:
        """See `Source`."""
        del visitor
        return await self._documents.inbox()

    async def ask(self, visitor: Visitor, handle: str) -> AskDocument:
        """See `Source`."""
        del visitor
        try:
            return await self._documents.ask(handle)
        except NoSuchAsk:
            raise NotThere from None
        except FleetError as error:
            raise Unavailable(bare(str(error))) from None

    async def ask_of(self, visitor: Visitor, instance: str, ask_id: str) -> AskDocument:
        """See `Source`."""
        del visitor
        try:
            return await self._documents.ask_of(instance, ask_id)
        except NoSuchAsk:
            raise NotThere from None
        except FleetError as error:
            raise Unavailable(bare(str(error))) from None

    async def decide(self, visitor: Visitor, decision: PageDecision) -> None:
        """See `Source`."""
        face = self._face.of(Caller(visitor.login, frozenset(visitor.may)))
        try:
            await decide(face, decision.handle, decision.digest, decision.answer)
        except FleetError as error:
            raise (Unavailable if error.is_doubtful else NotDecided)(bare(str(error))) from None

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        """See `Source`."""

        async def follow() -> AsyncIterator[None]:
            while not self._closing.is_set():
                waits = [asyncio.ensure_future(self._face.journal.changed())]
                waits.append(asyncio.ensure_future(self._closing.wait()))
                try:
                    await asyncio.wait(waits, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for each in waits:
                        each.cancel()
                yield

        yield follow()
