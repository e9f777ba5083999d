"""Where the agent is, as the guard is told by the launcher."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Target:
    """An agent that runs.

    Attributes:
        url: such as `http://127.0.0.1:49374`, without a slash at its end.
        authorization: the whole value of the header that it wants, or None.
        generation: of OpenCode, 1 or 2.
        version: as the agent tells it.

    """

    url: str
    authorization: str | None = field(repr=False)
    generation: int
    version: str


class Upstream(Protocol):
    """Knows where the agent is. Both calls are bounded in time by whoever implements them."""

    async def target(self) -> Target | None:
        """Return the agent as last known; None if it does not run."""

    async def moved(self, seen: Target) -> Target | None:
        """Look anew, after `seen` refused the connection, ended it or wanted another password.

        It may return the same again.
        """
