"""An agent some of whose calls never return, as where its line drips, or hardly carries anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from support.opencodes.fake_agent import FakeAgent

if TYPE_CHECKING:
    from opencode_fleet.model import Message, Prompt, Runs


class FakeHanging(FakeAgent):
    """`hangs` holds the names of the calls that do not return; `held` counts those that were begun."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs: set[str] = set()
        self.held = 0

    async def _hang(self, call: str) -> None:
        if call in self.hangs:
            self.held += 1
            await asyncio.Event().wait()

    async def runs(self) -> Runs:
        """See `Agent.runs`."""
        await self._hang("runs")
        return await super().runs()

    async def messages(self, session_id: str, limit: int, **options: object) -> list[Message]:
        """See `Agent.messages`."""
        await self._hang("messages")
        return await super().messages(session_id, limit, **options)

    async def prompt(self, prompt: Prompt) -> None:
        """See `Agent.prompt`."""
        await self._hang("prompt")
        await super().prompt(prompt)
