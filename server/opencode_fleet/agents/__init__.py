"""The kinds of agents: wire formats are known here alone. A new kind is a file here and a line in `KINDS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_fleet.agents.guard import GuardDocument, read_guard
from opencode_fleet.agents.opencode1 import OpenCode1
from opencode_fleet.agents.opencode2 import OpenCode2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opencode_fleet.agent import Agent
    from opencode_fleet.agents.http import AgentClient

KINDS: dict[int, Callable[[AgentClient, GuardDocument | None], Awaitable[Agent]]] = {
    1: OpenCode1.connect,
    2: OpenCode2.connect,
}
"""By the generation that the guard tells; without a guard it is the first."""


async def connect(client: AgentClient) -> Agent:
    """Find out which kind answers, and return it. Raises `InstanceError`."""
    guard = await read_guard(client)
    return await KINDS[guard.generation if guard else 1](client, guard)
