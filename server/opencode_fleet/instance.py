"""One instance of the fleet: a directory that an agent works in, as it is seen and driven."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from opencode_common.text import quote_name
from opencode_fleet.model import Permission
from opencode_fleet.state import DirectoryState

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from opencode_fleet.agent import Agent, Capability
    from opencode_fleet.connection import InstanceConnection
    from opencode_fleet.events import Event
    from opencode_fleet.transports.base import Endpoint

StateName = Literal[
    "connecting", "idle", "busy", "retry", "needs-permission", "needs-answer", "unresponsive", "offline"
]
"""What an instance can be in; `connecting` lasts only until the first answer, or a failure that is not early."""


class Instance:
    """A directory of an agent, under a name that is unique in the fleet."""

    def __init__(self, connection: InstanceConnection, name: str, directory: str) -> None:
        self.name = name
        self.state = DirectoryState()
        self.state.directory = directory
        self.closed_since: float | None = None
        """When (monotonic seconds) somebody closed it there, if so."""
        self.version = 0
        """Grows with every change of what can be seen of the instance."""
        self.posting: set[str] = set()
        """Sessions that a prompt is being posted to right now: not yet busy, but no longer free."""
        self._connection = connection
        self._listeners: set[Callable[[Event | None], None]] = set()

    @property
    def quoted(self) -> str:
        """Its name for sentences, inside delimiters: its own machine chose it."""
        return quote_name(self.name)

    @property
    def endpoint(self) -> Endpoint:
        """Where its agent is reached."""
        return self._connection.endpoint

    @property
    def agent(self) -> Agent:
        """Its agent.

        Raises:
            Unreachable: it is offline.
        """
        return self._connection.agent

    @property
    def agent_version(self) -> str:
        """The version of its agent, empty before it told it."""
        return self._connection.agent_version

    @property
    def rights(self) -> frozenset[str] | None:
        """What the owner of its machine lets through; None: not told."""
        return self._connection.rights

    def can(self, capability: Capability) -> bool:
        """Whether its agent has the capability."""
        return self._connection.can(capability)

    @property
    def connected(self) -> asyncio.Event:
        """Set while its state is true."""
        return self._connection.connected

    @property
    def settled(self) -> asyncio.Event:
        """Set once the first attempt to connect has ended, either way."""
        return self._connection.settled

    @property
    def offline_since(self) -> float | None:
        """Epoch seconds; None while it is registered and listens."""
        return self._connection.offline_since

    @property
    def known_until(self) -> float | None:
        """Epoch seconds up to which its state is known; None: it is known now, or never was."""
        return None if self.connected.is_set() else self._connection.lost_at

    @property
    def gone_since(self) -> float | None:
        """Since when (monotonic seconds) it is registered and nothing listens there, or its agent does not run."""
        return self._connection.gone_since

    @property
    def is_agent_gone(self) -> bool:
        """Whether its machine answers, and says that the agent does not run."""
        return self._connection.is_agent_gone

    @property
    def trouble(self) -> str:
        """Why it is not connected, for people."""
        return self._connection.trouble

    @property
    def is_registered(self) -> bool:
        """Whether its transport knows it, reachable or not."""
        return self._connection.is_registered

    def shares_with(self, other: Instance) -> bool:
        """Whether both are directories of one agent."""
        return self._connection is other._connection

    def state_name(self) -> StateName:
        """Return what the instance is doing, in one word."""
        if self.offline_since is not None:
            return "offline"
        if not self.connected.is_set():
            failed = self.settled.is_set() and not self._connection.is_starting
            return "unresponsive" if failed else "connecting"
        asks = self.state.pending_asks()
        if any(isinstance(ask, Permission) for ask in asks):
            return "needs-permission"
        if asks:
            return "needs-answer"
        if self.state.retries():
            return "retry"
        return "busy" if self.state.statuses else "idle"

    @contextmanager
    def listening(self, listener: Callable[[Event | None], None]) -> Iterator[None]:
        """Tell `listener` every event, and None after a gap, until the block ends. It must not block or raise."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Take over that somebody closed it there."""
        self.closed_since = time.monotonic()
        self.tell(None)

    def move_to(self, connection: InstanceConnection) -> None:
        """Go on over another connection to the same agent: another launcher there holds the line now."""
        self._connection = connection
        self.closed_since = None
        self.tell(None)

    async def refresh(self) -> None:
        """Fetch what runs and waits anew.

        Raises:
            InstanceError: it did not answer; the state is as it was.
        """
        await self._connection.refresh()

    def tell(self, event: Event | None) -> None:
        """Take over an event, or that something else has changed, and tell the listeners."""
        if event is not None:
            self.state.apply(event)
        self.version += 1
        for listener in tuple(self._listeners):
            listener(event)
