"""What OpenCode 2 offers in a directory: agents, models and commands.

It reads a directory's configuration when it is first asked. Until then its lists lack what is configured there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_fleet.agents.http import LARGE_BODY
from opencode_fleet.agents.opencode2 import wire

if TYPE_CHECKING:
    from opencode_fleet.agents.opencode2.records import Calls


class Catalogue:
    """Lists of what one agent offers. Each raises as `Calls.call` does."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def agents(self, directory: str) -> list[str]:
        """Return the agents that a person may have a session go on with."""
        told = await self._list("agent.list", directory)
        return [each.id for each in self._calls.client.many(wire.Agent, told) if each.is_for_people]

    async def models(self, directory: str) -> list[str]:
        """Return the models that can be used, as `PROVIDER/MODEL`."""
        told = await self._list("model.list", directory)
        return [each.name() for each in self._calls.client.many(wire.Model, told) if each.enabled]

    async def commands(self, directory: str) -> list[str]:
        """Return the names of the commands that can be run."""
        told = await self._list("command.list", directory)
        return [each.name for each in self._calls.client.many(wire.Command, told)]

    async def _list(self, name: str, directory: str) -> object:
        return await self._calls.data(name, params={"location[directory]": directory}, limit=LARGE_BODY)
