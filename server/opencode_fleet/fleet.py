"""All instances: who is there, who went away, and which one a name means."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from opencode_common.text import one_line, quote
from opencode_common.times import moment_text
from opencode_fleet.agent import Capability
from opencode_fleet.agents import connect
from opencode_fleet.credentials import Credentials
from opencode_fleet.errors import InstanceError, NoSuchInstance, Unreachable, Unresponsive
from opencode_fleet.registered import Registered
from opencode_fleet.transports.base import Appeared, Departed, ScanDone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from opencode_fleet.connection import Connect
    from opencode_fleet.events import Event
    from opencode_fleet.instance import Instance
    from opencode_fleet.registered import Listener
    from opencode_fleet.settings import ServerSettings
    from opencode_fleet.transports.base import Change, Endpoint, Transport

log = logging.getLogger(__name__)

OFFLINE_KEPT = 24 * 3600.0
"""Seconds that an instance which vanished stays listed."""
MAX_DEPARTED = 16
"""Instances of one enrolled machine that are remembered after they vanished: as many as it has ports by default.

Each machine has its own limit, oldest evicted first, so machines cannot evict each other's.
"""
MAX_DEPARTED_PLAIN = 100
"""The same for all machines of a plain account together, which cannot be told apart."""
SCAN_TIMEOUT = 5.0
"""Seconds that a caller waits for the first scan, on a slow disk or a busy machine."""
SETTLE_QUIET = 0.25
"""Seconds without progress after which a starting fleet is shown as it is: hung instances delay nobody."""
MAX_CANDIDATES = 20
QUIET_FOR = 8.0
"""Seconds that a session may run without a sign before its agent is asked; a person may look every 15."""
ASKED_AT_ONCE = 20


class Fleet:
    """The live fleet. Use `running` around its life."""

    def __init__(self, transport: Transport, settings: ServerSettings, find_agent: Connect = connect) -> None:
        self._transport = transport
        self._settings = settings
        self._find_agent = find_agent
        self._credentials = Credentials(settings.credentials_file)
        self._registered: dict[str, Registered] = {}
        self._listeners: set[Listener] = set()
        self._scanned = asyncio.Event()
        self._broken = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Fleet]:
        """Follow the transport while the block runs."""
        tasks = [asyncio.create_task(self._follow(), name="fleet"), asyncio.create_task(self._reconcile())]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.gather(*(registered.depart() for registered in self._registered.values()))

    # -- questions ---------------------------------------------------------------------------------------------

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` every event of every instance; call what is returned to end it.

        It is called with the instance and the event, or None where something else about it has changed: its
        connection, its name, that it is new or gone. It must not block; what it raises is logged.
        """
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def instances(self) -> list[Instance]:
        """Return all instances, the living first, by name, from memory.

        A fleet that is just starting gets a moment to settle.
        """
        await self._settle()
        oldest = time.time() - OFFLINE_KEPT
        shown = [i for i in self.all_instances() if i.offline_since is None or i.offline_since >= oldest]
        return sorted(shown, key=lambda instance: (instance.offline_since is not None, instance.name))

    def all_instances(self) -> Iterator[Instance]:
        """Return every instance that is known right now, in no order."""
        return itertools.chain.from_iterable(registered.instances for registered in self._registered.values())

    def problems(self) -> list[str]:
        """Return what keeps instances from being seen, a line each."""
        own = self._own_problem()
        return [*([own] if own else []), *self._transport.problems()]

    def absence(self) -> str:
        """Say why no instance is listed, and the next step."""
        return self._own_problem() or self._transport.absence()

    def _own_problem(self) -> str:
        if self._broken:
            return "instances are no longer discovered, by a fault of this server: restart it; see its log"
        return "" if self._scanned.is_set() else "what is registered is still being read; ask again"

    async def find(self, name: str) -> Instance:
        """Return the one instance that `name` means: exactly, else ignoring case, else as a part of its name.

        The name of an enrolled machine's instance begins with the machine's, and only its end may be left out:
        `laptop-desktop-api` must not answer for `desktop-api` while that one is away.

        Raises:
            NoSuchInstance: none or several; the message lists the candidates.
        """
        instances = await self.instances()
        wanted = name.strip()
        folded = wanted.casefold()
        for match in (
            lambda known: known.name == wanted,
            lambda known: known.name.casefold() == folded,
            lambda known: bool(folded) and _is_part(folded, known),
        ):
            found = [instance for instance in instances if match(instance)]
            if len(found) == 1:
                return found[0]
            if found:
                raise NoSuchInstance(
                    f"{one_line(name, 64)!r} fits several instances: {_listed(found)}; name one exactly"
                )
        if not instances:
            raise NoSuchInstance(self.absence())
        told = f"no instance is named {one_line(name, 64)!r}"
        if near := [each for each in instances if folded and folded in each.name.casefold()]:
            told += f"; the name of an enrolled machine's instance may be shortened only at its end: {_listed(near)}"
        raise NoSuchInstance(f"{told}; there are: {_listed(instances)}")

    async def find_live(self, name: str) -> Instance:
        """Return the instance that `name` means, once its state is known.

        Raises:
            NoSuchInstance: see `find`.
            Unreachable, Unresponsive: it is not connected; the message says why and since when.
        """
        instance = await self.find(name)
        if instance.offline_since is not None:
            raise Unreachable(
                f"{instance.quoted} is offline since {moment_text(instance.offline_since)} "
                f"({instance.trouble}); nothing was sent. See `opencode-connected status` on its machine"
            )
        try:
            async with asyncio.timeout(self._settings.health_timeout):
                await instance.connected.wait()
        except TimeoutError:
            why = instance.trouble or "it accepts connections but does not answer"
            raise Unresponsive(f"{instance.quoted} is unresponsive: {why}; nothing was sent") from None
        return instance

    def runner_of(self, session_id: str, besides: Instance) -> Instance | None:
        """Return the living instance other than `besides` that runs the session or was the last to run it."""
        # One whose line is broken for a moment is alive all the same, and runs what it was last seen to run.
        others = [
            other
            for other in self.all_instances()
            if other is not besides
            # Directories of one agent: whoever of them is asked, it is the same that runs it.
            and not other.shares_with(besides)
            and other.is_registered
            and other.offline_since is None
            # No other machine has its sessions, whatever it claims.
            and other.endpoint.client == besides.endpoint.client
        ]
        for other in others:
            if other.state.is_busy(session_id):
                return other
        ran = [other for other in others if session_id in other.state.ran]
        latest = max(ran, key=lambda other: other.state.ran[session_id], default=None)
        if latest is not None and latest.state.ran[session_id] > besides.state.ran.get(session_id, 0.0):
            return latest
        return None

    # -- life --------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        try:
            async for change in self._transport.changes():
                await self._apply(change)
        except Exception:
            # What is known goes on working; that nothing new is seen must not go unnoticed.
            log.exception("discovery ended")
            self._broken = True
            self._scanned.set()

    async def _reconcile(self) -> None:
        """Ask the agents of what runs in silence: a notice of its end may have been lost."""
        while True:
            await asyncio.sleep(QUIET_FOR / 2)
            quiet = [registered for registered in self._registered.values() if registered.is_quiet(QUIET_FOR)]
            for batch in _batches(quiet):
                await asyncio.gather(*map(self._refresh, batch))

    async def _refresh(self, registered: Registered) -> None:
        with suppress(InstanceError):  # a dead line is its connection's to mend
            await registered.connection.refresh()

    async def _apply(self, change: Change) -> None:
        match change:
            case Appeared(endpoint):
                for other in self._registered.values():
                    other.rename(endpoint.name)
                registered = self._registered.get(endpoint.name)
                if registered is None:
                    registered = self._registered[endpoint.name] = self._new(endpoint)
                await registered.connect_to(endpoint)
            case Departed(name, clean):
                registered = self._registered[name]
                await registered.depart(closed=clean)
                # One that never was an agent is nothing to miss, and costs whoever invents names nothing.
                over = clean and not registered.turns_go_on
                if over or not registered.connection.was_connected:
                    del self._registered[name]
                self._forget_departed(registered.connection.endpoint.client)
            case ScanDone():
                self._scanned.set()

    def _new(self, endpoint: Endpoint) -> Registered:
        return Registered(
            endpoint,
            self._transport,
            self._credentials,
            self._settings.health_timeout,
            find_agent=self._find_agent,
            taken=lambda: {instance.name for instance in self.all_instances()},
            adopt=self._adopt,
            tell=self._tell,
        )

    def _adopt(self, endpoint: Endpoint, directory: str) -> Instance | None:
        """Return what an ended registration of the same machine left of a directory, and forget it there.

        Its agent is the same where it outlives its launchers, so whoever follows a turn goes on following it.
        """
        for name, left in self._registered.items():
            old = left.connection
            # First what rules nearly all of them out: this is asked for each directory of each machine.
            if old.is_registered or not old.can(Capability.OUTLIVES):
                continue
            if (old.endpoint.client, old.endpoint.hostname) != (endpoint.client, endpoint.hostname):
                continue
            for instance in left.instances:
                if instance.state.directory == directory:
                    if not left.give_up(instance):
                        del self._registered[name]
                    return instance
        return None

    def _tell(self, instance: Instance, event: Event | None) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(instance, event)
            except Exception:
                log.exception("a listener failed")

    def _forget_departed(self, client: str | None) -> None:
        departed = [
            registered.connection
            for registered in self._registered.values()
            if not registered.connection.is_registered and registered.connection.endpoint.client == client
        ]
        departed.sort(key=lambda connection: connection.offline_since or 0.0)
        oldest = time.time() - OFFLINE_KEPT
        too_many = len(departed) - (MAX_DEPARTED if client else MAX_DEPARTED_PLAIN)
        for index, connection in enumerate(departed):
            if index < too_many or (connection.offline_since or 0.0) < oldest:
                del self._registered[connection.name]

    async def _settle(self) -> None:
        try:
            async with asyncio.timeout(SCAN_TIMEOUT):
                await self._scanned.wait()
            async with asyncio.timeout(self._settings.health_timeout):
                waiting = [r.connection for r in self._registered.values() if not r.connection.settled.is_set()]
                while waiting:
                    before = len(waiting)
                    waits = [asyncio.ensure_future(connection.settled.wait()) for connection in waiting]
                    try:
                        await asyncio.wait(waits, timeout=SETTLE_QUIET)
                    finally:
                        for wait in waits:
                            wait.cancel()
                    waiting = [connection for connection in waiting if not connection.settled.is_set()]
                    if len(waiting) == before:
                        return
        except TimeoutError:
            return


def _is_part(folded: str, instance: Instance) -> bool:
    known = instance.name.casefold()
    return known.startswith(folded) if instance.endpoint.client else folded in known


def _listed(instances: list[Instance]) -> str:
    # Their own machines chose the names.
    names = quote(", ".join(instance.name for instance in instances[:MAX_CANDIDATES]), MAX_CANDIDATES * 66)
    more = len(instances) - MAX_CANDIDATES
    return f"{names} and {more} more" if more > 0 else names


def _batches(registered: list[Registered]) -> Iterator[list[Registered]]:
    for start in range(0, len(registered), ASKED_AT_ONCE):
        yield registered[start : start + ASKED_AT_ONCE]
