"""The line to one agent: one long-lived event stream for all its directories; a broken one reconnects by itself."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from opencode_common.text import quote_name
from opencode_fleet.agent import Capability
from opencode_fleet.agents import connect
from opencode_fleet.agents.http import AgentClient
from opencode_fleet.errors import (
    AgentGone,
    InstanceError,
    NotFound,
    SettingsError,
    Unauthorized,
    Unreachable,
    Unresponsive,
)
from opencode_fleet.events import RUN_STATE, SessionChanged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opencode_fleet.agent import Agent
    from opencode_fleet.credentials import Credentials
    from opencode_fleet.events import Event
    from opencode_fleet.model import Runs, Snapshot
    from opencode_fleet.transports.base import Endpoint, Transport

    Connect = Callable[[AgentClient], Awaitable[Agent]]

log = logging.getLogger(__name__)

FIRST_RETRY = 0.1
MAX_RETRY = 15.0
MAX_DOUBLINGS = 10
EARLY = 10.0
"""Seconds after a registration in which an agent may still be starting: until then its silence is no trouble."""
STABLE_AFTER = 5.0
"""Seconds after which a connection counts as good, so that the next break is mended at once again."""
REFRESH_WITHIN = 60.0
"""Seconds in which what runs must have come, however slowly it arrives: others wait for it."""
MAX_SESSIONS_PLACED = 5_000
"""Sessions whose directories are remembered, of one agent."""


class Places(Protocol):
    """Takes what an agent tells, by directory. Nothing in it may block or raise."""

    def reset(self, snapshot: Snapshot) -> None:
        """Take over a snapshot: its workplaces are all that there are now."""

    def refresh(self, runs: Runs, events: list[Event], directory_of: Callable[[str], str | None]) -> None:
        """Take over what runs, then again the run state in `events`, which came while it was fetched."""

    def take(self, event: Event, directory: str | None) -> None:
        """Take over an event of a session in `directory`; None: the agent's only one."""

    def changed(self) -> None:
        """Hear that the connection was made or lost."""


class InstanceConnection:
    """Keeps an agent's state while it is registered. Not for use from several loops."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        credentials: Credentials,
        *,
        health_timeout: float,
        places: Places,
        find_agent: Connect = connect,
    ) -> None:
        self.endpoint = endpoint
        self.connected = asyncio.Event()
        """Set while the stream stands and the state is true."""
        self.settled = asyncio.Event()
        """Set once the first attempt to connect has ended, either way."""
        self.offline_since: float | None = None
        """Epoch seconds; None while it is registered and listens."""
        self.gone_since: float | None = None
        """Monotonic seconds since which it is registered and nothing listens there, or its agent does not run."""
        self.is_agent_gone = False
        """Its machine answers, and says that the agent does not run."""
        self.trouble = ""
        """Why it is not connected, for people."""
        self.lost_at: float | None = None
        """Epoch seconds of the last break of the stream, up to which the state is known; None: there was none."""
        self.was_connected = False
        """It answered as an agent does, at least once."""
        self.agent_version = ""
        self.rights: frozenset[str] | None = None
        """What the owner of its machine lets through; None: not told."""
        self._transport = transport
        self._credentials = credentials
        self._health_timeout = health_timeout
        self._places = places
        self._find_agent = find_agent
        self._registered_at = 0.0
        self._was_answered = False
        self._connected_at = 0.0
        self._no_credential_because = ""
        self._task: asyncio.Task[None] | None = None
        self._client: AgentClient | None = None
        self._agent: Agent | None = None
        self._directories: OrderedDict[str, str] = OrderedDict()
        self._recorders: list[list[Event]] = []

    @property
    def name(self) -> str:
        """The name that it registered with."""
        return self.endpoint.name

    @property
    def quoted(self) -> str:
        """Its name for sentences, inside delimiters: its own machine chose it."""
        return quote_name(self.name)

    @property
    def agent(self) -> Agent:
        """The agent at its other end.

        Raises:
            Unreachable: it is offline, or has not answered yet.
        """
        if self._agent is None or self._client is None:
            raise Unreachable(f"{self.quoted} is offline" if self.offline_since else f"{self.quoted}: {self._why()}")
        return self._agent

    def can(self, capability: Capability) -> bool:
        """Whether the agent, as last seen, has it."""
        return self._agent is not None and capability in self._agent.capabilities

    @property
    def is_registered(self) -> bool:
        """Whether its transport knows it, reachable or not."""
        return self._task is not None

    @property
    def is_starting(self) -> bool:
        """Whether it registered so lately that it need not answer yet. A wrong answer is no silence."""
        silent = not self.was_connected and not self._was_answered
        return silent and time.monotonic() - self._registered_at < EARLY

    def _why(self) -> str:
        return self.trouble or "it has not answered yet"

    async def refresh(self) -> None:
        """Fetch what runs and waits anew.

        Raises:
            InstanceError: it did not answer, or not in `REFRESH_WITHIN`; the state is as it was.
        """
        events: list[Event] = []
        # What is answered may be older than what is told meanwhile.
        self._recorders.append(events)
        try:
            agent = self.agent
            async with asyncio.timeout(REFRESH_WITHIN):
                runs = await agent.runs()
                await self._learn(agent, [*runs.statuses, *(ask.session_id for ask in runs.asks)])
        except TimeoutError:
            raise Unresponsive(f"{self.quoted} did not tell in time what runs there") from None
        finally:
            # By identity: lists of the same events are equal.
            self._recorders = [recorder for recorder in self._recorders if recorder is not events]
        self._places.refresh(runs, events, self._directory_of)

    # -- life ----------------------------------------------------------------------------------------------------

    async def connect_to(self, endpoint: Endpoint) -> None:
        """(Re)start at `endpoint`; what is known stays until the new snapshot."""
        await self._stop()
        self.endpoint = endpoint
        self.offline_since = self.gone_since = None
        self._registered_at = time.monotonic()
        self._was_answered = False
        self._client = AgentClient(endpoint, self._health_timeout)
        self._task = asyncio.create_task(self._keep(self._client), name=f"connection {endpoint.name}")
        self._places.changed()

    async def depart(self, *, why: str) -> None:
        """The registration is gone: stop, and remember since when."""
        await self._stop()
        self.gone_since = None
        self._mark_offline(why)
        self._places.changed()

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
        self._lost()

    async def _keep(self, client: AgentClient) -> None:
        failures = 0
        while True:
            self._connected_at = float("inf")
            try:
                # Read anew each time: a password may be added while the server runs.
                self._authorize(client)
                await self._watch(client)
            except InstanceError as error:
                self._failed(error)
            except Exception:
                # Whatever a hostile agent provokes stays its own problem.
                log.exception("watching %r failed", self.name)
            was_stable = time.monotonic() - self._connected_at >= STABLE_AFTER
            self._lost()
            self.settled.set()
            self._places.changed()
            failures = 0 if was_stable else min(failures + 1, MAX_DOUBLINGS)
            delay = min(MAX_RETRY, FIRST_RETRY * 2**failures)
            if self.is_starting:
                delay = min(delay, 1.0)
            await asyncio.sleep(delay * random.uniform(0.7, 1.3))  # noqa: S311 - jitter

    def _authorize(self, client: AgentClient) -> None:
        try:
            self._no_credential_because = ""
            credential = self._credentials.for_instance(self.name)
        except SettingsError as error:
            # Told to those who ask for an instance that wants a password; it is no fault of the others.
            self._no_credential_because, credential = str(error), None
        if credential is None:
            client.authorize(None)
        else:
            client.authorize(credential.username, credential.password.get_secret_value())

    async def _watch(self, client: AgentClient) -> None:
        """Hold one event stream: snapshot first, then every event; returns when the stream ended in good order."""
        agent = await self._find_agent(client)
        async with agent.events() as events:
            # Opened before the snapshot, so that nothing happens unseen between the two.
            self._agent, self.agent_version, self.rights = agent, agent.version, agent.rights
            await self._take_snapshot(agent)
            self._transport.report_alive(self.endpoint)
            self.offline_since, self.gone_since, self.trouble = None, None, ""
            self.was_connected = True
            self._connected_at = time.monotonic()
            self.connected.set()
            self.settled.set()
            self._places.changed()
            async for event in events:
                if event is None:
                    # What it would have changed is fetched.
                    await self._take_snapshot(agent)
                    self._places.changed()
                else:
                    await self._take(agent, event)

    async def _take_snapshot(self, agent: Agent) -> None:
        snapshot = await agent.snapshot()
        for session in snapshot.sessions:
            self._place(session.id, session.directory)
        self._places.reset(snapshot)

    async def _take(self, agent: Agent, event: Event) -> None:
        if isinstance(event, SessionChanged):
            self._place(event.session_id, event.session.directory)
        await self._learn(agent, [event.session_id])
        if isinstance(event, RUN_STATE):
            # Only these are replayed; what is written meanwhile is without bounds.
            for recorder in self._recorders:
                recorder.append(event)
        self._places.take(event, self._directory_of(event.session_id))

    async def _learn(self, agent: Agent, session_ids: list[str]) -> None:
        """Fetch the records of sessions whose directory is not known, where that matters."""
        if Capability.DIRECTORIES not in agent.capabilities:
            return
        for session_id in session_ids:
            if session_id not in self._directories:
                with suppress(NotFound):
                    session = await agent.session(session_id)
                    self._place(session_id, session.directory)
                    self._places.take(SessionChanged(session), session.directory)

    def _place(self, session_id: str, directory: str) -> None:
        self._directories[session_id] = directory
        self._directories.move_to_end(session_id)
        while len(self._directories) > MAX_SESSIONS_PLACED:
            self._directories.popitem(last=False)

    def _directory_of(self, session_id: str) -> str | None:
        """Return where the session is; None where the agent works in one directory only."""
        if not self.can(Capability.DIRECTORIES):
            return None
        return self._directories.get(session_id, "")

    def _failed(self, error: InstanceError) -> None:
        self.trouble = str(error)
        self._was_answered = not isinstance(error, Unreachable | Unresponsive)
        self.is_agent_gone = isinstance(error, AgentGone)
        if self.is_agent_gone or (isinstance(error, Unreachable) and error.refused):
            self.gone_since = self.gone_since or time.monotonic()
        else:
            self.gone_since = None
        if isinstance(error, Unreachable) and error.refused:
            self._transport.report_refused(self.endpoint)
            self._mark_offline("nothing listens at its port")
            return
        self.offline_since = None
        self._transport.report_alive(self.endpoint)
        if isinstance(error, Unauthorized) and self._no_credential_because:
            self.trouble = f"{self.quoted} wants a password, and {self._no_credential_because}"

    def _mark_offline(self, why: str) -> None:
        if self.offline_since is None:
            self.offline_since = time.time()
        self.trouble = why

    def _lost(self) -> None:
        if self.connected.is_set():
            self.connected.clear()
            self.lost_at = time.time()
            self._places.changed()
