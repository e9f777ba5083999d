"""One instance of the fleet: a long-lived event stream keeps its state; a broken one reconnects by itself."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from opencode_common.text import quote_name
from opencode_fleet.errors import (
    BadAnswer,
    InstanceError,
    NotFound,
    SettingsError,
    Unauthorized,
    Unreachable,
    Unresponsive,
)
from opencode_fleet.opencode import REQUEST_TIMEOUT, OpenCode
from opencode_fleet.state import InstanceState, Snapshot
from opencode_fleet.wire import Event, Permission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from opencode_fleet.credentials import Credential, Credentials
    from opencode_fleet.transports.base import Endpoint, Transport

log = logging.getLogger(__name__)

HEARTBEAT_GRACE = 13.0
"""Seconds of silence after which the stream is given up and opened anew; OpenCode sends a heartbeat every 10."""
FIRST_RETRY = 0.1
MAX_RETRY = 15.0
MAX_DOUBLINGS = 10
STABLE_AFTER = 5.0
"""Seconds after which a connection counts as good, so that the next break is mended at once again."""
SESSIONS_IN_SNAPSHOT = 20

StateName = Literal[
    "connecting", "idle", "busy", "retry", "needs-permission", "needs-answer", "unresponsive", "offline"
]
"""What an instance can be in; `connecting` lasts only until the first answer or failure."""


class Instance:
    """An instance and, while it is registered, the task that keeps its state. Not for use from several loops."""

    def __init__(
        self, endpoint: Endpoint, transport: Transport, credentials: Credentials, health_timeout: float
    ) -> None:
        self.endpoint = endpoint
        self.state = InstanceState()
        self.connected = asyncio.Event()
        """Set while the stream stands and the state is true."""
        self.settled = asyncio.Event()
        """Set once the first attempt to connect has ended, either way."""
        self.offline_since: float | None = None
        """Epoch seconds; None while it is registered and listens."""
        self.trouble = ""
        """Why it is not connected, for people."""
        self.was_connected = False
        """It answered as OpenCode does, at least once."""
        self.closed = False
        """It said goodbye: what it was doing has ended, and a new instance of its name is another one."""
        self.version = 0
        """Grows with every change of what can be seen of the instance."""
        self.posting: set[str] = set()
        """Sessions that a prompt is being posted to right now: not yet busy, but no longer free."""
        self._transport = transport
        self._credentials = credentials
        self._health_timeout = health_timeout
        self._listeners: set[Callable[[Event | None], None]] = set()
        self._connected_at = 0.0
        self._no_credential_because = ""
        self._task: asyncio.Task[None] | None = None
        self._api: OpenCode | None = None

    # -- what others ask -----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name, unique in the fleet."""
        return self.endpoint.name

    @property
    def quoted(self) -> str:
        """Its name for sentences, inside delimiters: its own machine chose it."""
        return quote_name(self.name)

    @property
    def api(self) -> OpenCode:
        """The client of its API.

        Raises:
            Unreachable: it is offline.
        """
        if self._api is None:
            raise Unreachable(f"{self.quoted} is offline")
        return self._api

    @property
    def is_registered(self) -> bool:
        """Whether its transport knows it, reachable or not."""
        return self._task is not None

    def state_name(self) -> StateName:
        """Return what the instance is doing, in one word."""
        if self.offline_since is not None:
            return "offline"
        if not self.connected.is_set():
            return "unresponsive" if self.settled.is_set() else "connecting"
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

    async def refresh(self) -> None:
        """Fetch statuses and asks anew.

        Raises:
            InstanceError: it did not answer; the state is as it was.
        """
        directory = self.state.directory
        with self._events_since_now() as events:
            statuses = await self.api.statuses(directory)
            permissions = await self.api.permissions(directory)
            questions = await self.api.questions(directory)
        self.state.refresh_statuses(statuses)
        self.state.refresh_asks([*permissions, *questions])
        self.state.replay(events)
        self.version += 1

    async def refresh_statuses(self) -> None:
        """Fetch only what runs.

        Raises:
            InstanceError: it did not answer; the state is as it was.
        """
        with self._events_since_now() as events:
            statuses = await self.api.statuses(self.state.directory)
        self.state.refresh_statuses(statuses)
        self.state.replay(events)
        self.version += 1

    @contextmanager
    def _events_since_now(self) -> Iterator[list[Event]]:
        """Collect the events that come while OpenCode is asked: its answers may be older than they are."""
        events: list[Event] = []

        def collect(event: Event | None) -> None:
            if event is not None:
                events.append(event)

        with self.listening(collect):
            yield events

    # -- life ----------------------------------------------------------------------------------------------------

    async def connect_to(self, endpoint: Endpoint) -> None:
        """(Re)start at `endpoint`; what is known of the instance stays until the new snapshot."""
        await self._stop()
        self.endpoint = endpoint
        self.offline_since = None
        self.version += 1
        self._api = OpenCode(endpoint, self._health_timeout)
        self._task = asyncio.create_task(self._keep(self._api), name=f"instance {endpoint.name}")

    async def depart(self, *, closed: bool = False) -> None:
        """The registration is gone: stop, and remember since when. `closed`: this OpenCode ended, for good."""
        self.closed = closed
        await self._stop()
        self._mark_offline("it was closed" if closed else "its registration is gone")
        self._tell(None)

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        api, self._api = self._api, None
        if api is not None:
            await api.aclose()
        self._lost()

    async def _keep(self, api: OpenCode) -> None:
        failures = 0
        while True:
            self._connected_at = float("inf")
            try:
                # Read anew each time: a password may be added while the server runs.
                api.authenticate(self._credential())
                await self._watch(api)
            except InstanceError as error:
                self._failed(error)
            except Exception:
                # Whatever a hostile instance provokes stays its own problem.
                log.exception("watching %r failed", self.name)
            was_stable = time.monotonic() - self._connected_at >= STABLE_AFTER
            failures = 0 if was_stable else min(failures + 1, MAX_DOUBLINGS)
            self._lost()
            self.settled.set()
            self.version += 1
            delay = min(MAX_RETRY, FIRST_RETRY * 2**failures)
            await asyncio.sleep(delay * random.uniform(0.7, 1.3))  # noqa: S311 - jitter

    def _credential(self) -> Credential | None:
        try:
            self._no_credential_because = ""
            return self._credentials.for_instance(self.name)
        except SettingsError as error:
            # Told to those who ask for an instance that wants a password; it is no fault of the others.
            self._no_credential_because = str(error)
            return None

    async def _watch(self, api: OpenCode) -> None:
        """Hold one event stream: snapshot first, then every event; returns when the stream ended in good order."""
        health = await api.health()
        directory = (await api.location()).directory
        async with api.events(directory) as events:
            # Connected before the snapshot, so that nothing happens unseen between the two.
            await self._expect_connected(events)
            self.state.reset(await self._snapshot(api, directory, health.version))
            self._transport.report_alive(self.endpoint)
            self.offline_since, self.trouble = None, ""
            self.connected.set()
            self.was_connected = True
            self._connected_at = time.monotonic()
            self.settled.set()
            self._tell(None)
            clock = asyncio.get_running_loop().time
            try:
                async with asyncio.timeout(HEARTBEAT_GRACE) as silence:
                    async for event in events:
                        await self._take(event)
                        silence.reschedule(clock() + HEARTBEAT_GRACE)
            except TimeoutError:
                raise Unresponsive(f"{self.quoted} went silent") from None

    async def _expect_connected(self, events: AsyncIterator[Event | None]) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                first = await anext(events, None)
        except TimeoutError:
            raise Unresponsive(f"{self.quoted} opened no event stream in time") from None
        if first is None or first.type != "server.connected":
            raise BadAnswer(f"{self.quoted} opened no proper event stream")

    async def _take(self, event: Event | None) -> None:
        if event is None:
            # One was too large or no JSON; what it would have changed is fetched.
            await self.refresh()
        else:
            self.state.apply(event)
        self._tell(event)

    async def _snapshot(self, api: OpenCode, directory: str, version: str) -> Snapshot:
        # One after the other, on the one connection that stays: several at once would each open another, which costs
        # as many round trips and, over a large fleet, much memory.
        statuses = await api.statuses(directory)
        permissions = await api.permissions(directory)
        questions = await api.questions(directory)
        sessions = await api.root_sessions(directory, SESSIONS_IN_SNAPSHOT)
        # A subagent's ask is shown under the session that started it, which only its own record names.
        known = {session.id for session in sessions}
        for session_id in [busy for busy in statuses if busy not in known][:SESSIONS_IN_SNAPSHOT]:
            try:
                sessions.append(await api.session(session_id))
            except NotFound:
                continue
        return Snapshot(directory, version, statuses, [*permissions, *questions], sessions)

    def _failed(self, error: InstanceError) -> None:
        self.version += 1
        self.trouble = str(error)
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
        self.version += 1

    def _lost(self) -> None:
        if self.connected.is_set():
            self.connected.clear()
            self._tell(None)

    def _tell(self, event: Event | None) -> None:
        self.version += 1
        for listener in tuple(self._listeners):
            listener(event)
