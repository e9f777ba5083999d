"""Holds the line: connects, registers, listens to its pulse, and begins again when it breaks.

    keeper = LineKeeper(settings, on_event, local_health)
    await keeper.start()                        # connects in the background
    state = await keeper.first_contact(5)       # phase: connected | refused | retrying | connecting
    name = await keeper.register(registration, name_is_default=True)    # or NameTaken, RelayRefused
    keeper.state                                # at any time
    await keeper.close()                        # goodbye; ssh is gone when it returns

`first_contact` returns with the first outcome, good or bad; `state.error` and `state.remedy` say what is wrong. The
keeper goes on trying by itself, quickly where the network may come back, slowly where a person has to act.
All of it belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opencode_connected import names
from opencode_connected.line.connection import BEGIN_SECONDS, MOST_BEGIN_SECONDS, LineConnection
from opencode_connected.line.errors import ForwardRefused, LineError, LineNameTaken, LineRefused, NotBegun
from opencode_connected.line.netwatch import NetWatch, NetworkChange
from opencode_connected.line.ports import PortChoice
from opencode_connected.line.retry import RetrySchedule
from opencode_connected.line.state import LineEvent, LineRecord, LineState
from opencode_connected.registration import now_utc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from opencode_connected.line.command import LineSettings
    from opencode_connected.line.protocol import RegisteredReply
    from opencode_connected.registration import OwnRegistration

_PING_SECONDS: Final = 4.0
"""Between two pings. The relay gives a connection up after 12 s without a message, or 15 s if it is of before."""
_REGISTER_AGAIN_SECONDS: Final = 2.0
"""Between two attempts to register on a connection that stands."""
_STABLE_SECONDS: Final = 10.0
"""A connection that lasted so long was a good one: the next failure is a new one."""
_FORWARD_SECONDS: Final = 4.0
"""Between two tries to have a port, at most: there may be one in a moment, but each try is a log-in."""
_GOODBYE_SECONDS: Final = 3.0


@dataclass(frozen=True)
class _Wanted:
    registration: OwnRegistration
    name_is_default: bool
    first: asyncio.Future[str]
    """The name of the first registration, or why there will be none."""


class LineKeeper:
    """The line of one instance. See the module's docstring."""

    def __init__(
        self,
        settings: LineSettings,
        on_event: Callable[[LineEvent], None],
        local_health: Callable[[], Awaitable[bool]],
        renewed: Callable[[LineSettings], LineSettings] = lambda settings: settings,
    ) -> None:
        """Make a keeper that does nothing yet.

        `renewed` returns the settings for the next try, given those of the last one: the relay may have moved.
        `on_event` is called, in the event loop, with everything that a log should hold. `local_health` tells whether
        OpenCode answers on this machine: it takes a few seconds at most, and does not raise.
        """
        self._settings = settings
        self._renewed = renewed
        self._local_health = local_health
        self._record = LineRecord(on_event)
        self._ports = PortChoice(settings.ports)
        self._schedule = RetrySchedule()
        self._begin_seconds = BEGIN_SECONDS
        self._connection: LineConnection | None = None
        self._wanted: _Wanted | None = None
        self._asked_name: str | None = None
        self._is_registered = False
        self._is_closing = False
        self._has_contact = asyncio.Event()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> LineState:
        """How the line is."""
        return self._record.state

    async def start(self) -> None:
        """Begin to connect in the background. Raises `LineError` if RELAY_SSH_CMD is no command at all."""
        watch = NetWatch(self._settings.ssh_command, self._network_changed, self._late_ssh)
        self._task = asyncio.create_task(self._run(watch), name="line")

    async def first_contact(self, seconds: float) -> LineState:
        """Wait up to `seconds` for the first outcome, and return the state then."""
        contact = asyncio.ensure_future(self._has_contact.wait())
        await self._wait_for(contact, seconds)
        contact.cancel()
        return self.state

    async def register(self, registration: OwnRegistration, *, name_is_default: bool) -> str:
        """Register, now and after every reconnect; return the name once it is done for the first time.

        `registration.port` and `connected_at` are filled in here. A default name that is held by a living instance
        gets a suffix. Waits as long as the relay cannot be reached, or cannot register for a reason that may pass.

        Raises:
            NameTaken: a living instance holds the explicit name.
            RelayRefused: the relay refuses for a reason that lasts.

        """
        first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._wanted = _Wanted(registration, name_is_default, first)
        self._is_registered = False
        self._wake.set()
        await self._wait_for(first, None)
        return await first

    async def close(self, *, clean: bool = True) -> None:
        """End the line; ssh is gone when this returns. `clean`: take the registration back first, for at most 3 s."""
        if self._task is None:
            return
        if clean and self._is_registered:
            self._is_closing = True
            self._wake.set()
            await asyncio.wait({self._task}, timeout=_GOODBYE_SECONDS)
        self._task.cancel()
        await asyncio.wait({self._task})
        self._record.closed()

    async def _wait_for(self, future: asyncio.Future[Any], seconds: float | None) -> None:
        if self._task is None:
            raise RuntimeError("start the keeper first")
        await asyncio.wait({future, self._task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            future.cancel()
            await self._task  # raises what it died of

    async def _run(self, watch: NetWatch) -> None:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch.run(), name="netwatch")
            while not self._is_closing:
                began = time.monotonic()
                try:
                    if (settings := self._renewed(self._settings)) != self._settings:
                        watching.cancel()
                        watch = NetWatch(settings.ssh_command, self._network_changed, self._late_ssh)
                        watching = group.create_task(watch.run(), name="netwatch")
                        self._settings, self._ports = settings, PortChoice(settings.ports)
                    await self._hold()
                except LineError as error:
                    if isinstance(error, NotBegun):
                        self._begin_seconds = min(2 * self._begin_seconds, MOST_BEGIN_SECONDS)
                    self._record.lost(error)
                    self._has_contact.set()
                    self._wake.clear()
                    await _first_of(self._wake, within=self._pause(error, time.monotonic() - began))
            watching.cancel()

    def _pause(self, error: LineError, took: float) -> float:
        # Whether the relay forbids the forward, or has no port to spare for a moment, ssh does not tell.
        is_forward = isinstance(error, ForwardRefused)
        return self._schedule.delay(
            permanent=error.permanent and not is_forward, took=took, least=_FORWARD_SECONDS if is_forward else 0.0
        )

    async def _hold(self) -> None:
        """Hold one connection, from its start to its end."""
        while True:
            patience = self._begin_seconds
            async with LineConnection(self._settings, forward=self._ports.port, begin_seconds=patience) as connection:
                self._connection = connection
                try:
                    await connection.open()
                    self._ports.worked()
                    self._record.connected(connection.port, connection.agent)
                    self._has_contact.set()
                    return await self._serve(connection)
                except ForwardRefused as refused:
                    if not self._ports.refused(refused):
                        raise
                finally:
                    self._connection = None
                    self._is_registered = False

    async def _serve(self, connection: LineConnection) -> None:
        began = time.monotonic()
        while True:
            self._wake.clear()
            if self._is_closing:
                await connection.bye()
                return
            if self._wanted and not self._is_registered:
                await self._register_on(connection, self._wanted)
            is_waiting = self._wanted is not None and not self._is_registered
            pause = _REGISTER_AGAIN_SECONDS if is_waiting else _PING_SECONDS
            await _first_of(self._wake, connection.ended, within=pause)
            if connection.ended.is_set() or not self._wake.is_set():
                await self._feel_pulse(connection)
            if time.monotonic() - began > _STABLE_SECONDS:
                self._schedule.reset()

    async def _feel_pulse(self, connection: LineConnection) -> None:
        pulse = await connection.ping()
        if pulse.health == "failed" and await self._local_health():
            pulse = await connection.ping()  # OpenCode may have been busy a moment ago
            if pulse.health == "failed":
                raise _not_carrying(connection.port)
        self._record.pulse(
            pulse.health, is_well=self._is_registered and not pulse.refusal and pulse.health != "failed"
        )
        if pulse.refusal is not None:
            self._is_registered = self._is_registered and pulse.refusal.code != "name-taken"
            self._refused(pulse.refusal)
        elif pulse.health == "failed":
            self._record.trouble("OpenCode does not answer", hop="local", is_registered=self._is_registered)

    async def _register_on(self, connection: LineConnection, wanted: _Wanted) -> None:
        for name in self._names(wanted, connection.client):
            update = {"name": name, "port": connection.port, "connected_at": now_utc()}
            try:
                registered = await self._register(connection, wanted.registration.model_copy(update=update))
            except LineNameTaken as taken:
                refusal: LineRefused = taken
            except LineRefused as refused:
                if refused.code == "not-carrying" and await self._local_health():
                    raise _not_carrying(connection.port) from refused
                refusal = refused
                break
            else:
                self._asked_name = name
                self._is_registered = True
                self._record.registered(registered.name, wanted.registration.name, registered.health)
                if not wanted.first.done():
                    wanted.first.set_result(registered.name)
                return
        self._refused(refusal)
        if refusal.permanent and not wanted.first.done():
            wanted.first.set_exception(refusal)
            self._wanted = None

    async def _register(self, connection: LineConnection, registration: OwnRegistration) -> RegisteredReply:
        """Register; where OpenCode answers here but not there, ask twice.

        A relay that all its laptops come back to at once may be slow to reach through a tunnel, and a new connection
        would be far more work for it.
        """
        try:
            return await connection.register(registration)
        except LineRefused as refused:
            if refused.code == "bad-port":  # it will not do next time either, unless it is another one
                raise ForwardRefused(connection.port, None, str(refused)) from refused
            if refused.code != "not-carrying" or not await self._local_health():
                raise
        return await connection.register(registration)

    def _refused(self, error: LineRefused) -> None:
        self._record.trouble(str(error), hop=error.hop, remedy=error.remedy, is_registered=self._is_registered)

    def _names(self, wanted: _Wanted, client: str | None) -> Iterable[str]:
        """Return what to register as, in order: first of all what it was before."""
        name = names.with_client(wanted.registration.name, client)
        if not wanted.name_is_default:
            return [name]  # too long a one is for the relay to refuse
        before = [self._asked_name] if self._asked_name else []
        return dict.fromkeys([*before, *names.candidates(name)])

    def _late_ssh(self) -> int | None:
        connection = self._connection
        return connection.pid if connection is not None and connection.liveness.is_late() else None

    def _network_changed(self, change: NetworkChange) -> None:
        self._schedule.hurry()
        self._wake.set()
        # Without a network a try fails at once: one that is under way has found the new one by itself.
        is_new = change is NetworkChange.ONLINE and self._record.state.phase not in ("connected", "registered")
        if self._connection is not None and not is_new:
            self._connection.abort(LineError(change.value, hop="lost"))


def _not_carrying(port: int) -> LineError:
    return LineError(
        f"the tunnel does not carry: OpenCode answers here, but not through port {port} of the relay",
        hop="forward",
        remedy="something between sshd and that port may drop connections, such as a firewall on the relay",
    )


async def _first_of(*events: asyncio.Event, within: float) -> None:
    """Wait until one of the events is set, or for `within` seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
