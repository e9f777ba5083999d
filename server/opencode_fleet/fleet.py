"""All instances: who is there, who went away, and which one a name means."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opencode_common.text import one_line, quote
from opencode_fleet.credentials import Credentials
from opencode_fleet.errors import NoSuchInstance, Unreachable, Unresponsive
from opencode_fleet.instance import Instance
from opencode_fleet.transports.base import Appeared, Departed, ScanDone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_fleet.settings import Settings
    from opencode_fleet.transports.base import Change, Transport

log = logging.getLogger(__name__)

OFFLINE_KEPT = 24 * 3600.0
"""Seconds that an instance which vanished stays listed."""
MAX_DEPARTED = 16
"""Instances of one enrolled machine that are remembered after they vanished, as many as it has ports by default; of
each machine its own longest gone are forgotten first, so that none pushes out what is known of another."""
MAX_DEPARTED_PLAIN = 100
"""The same for all machines of a plain account together, which cannot be told apart."""
SCAN_TIMEOUT = 5.0
"""Seconds that a caller waits for the first scan, on a slow disk or a busy machine."""
SETTLE_QUIET = 0.25
"""Seconds without progress after which a starting fleet is shown as it is: hung instances delay nobody."""
MAX_CANDIDATES = 20


class Fleet:
    """The live fleet. Use `running` around its life."""

    def __init__(self, transport: Transport, settings: Settings) -> None:
        self._transport = transport
        self._settings = settings
        self._credentials = Credentials(settings.credentials_file)
        self._instances: dict[str, Instance] = {}
        self._scanned = asyncio.Event()
        self._broken = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Fleet]:
        """Follow the transport while the block runs."""
        task = asyncio.create_task(self._follow(), name="fleet")
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])
            await asyncio.gather(*(instance.depart() for instance in self._instances.values()))

    # -- questions ---------------------------------------------------------------------------------------------

    async def instances(self) -> list[Instance]:
        """Return all instances, the living first, by name, from memory.

        A fleet that is just starting gets a moment to settle.
        """
        await self._settle()
        oldest = time.time() - OFFLINE_KEPT
        shown = [i for i in self._instances.values() if i.offline_since is None or i.offline_since >= oldest]
        return sorted(shown, key=lambda instance: (instance.offline_since is not None, instance.name))

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
        raise NoSuchInstance(f"no instance is named {one_line(name, 64)!r}; there are: {_listed(instances)}")

    async def find_live(self, name: str) -> Instance:
        """Return the instance that `name` means, once its state is known.

        Raises:
            NoSuchInstance: see `find`.
            Unreachable, Unresponsive: it is not connected; the message says why and since when.
        """
        instance = await self.find(name)
        if instance.offline_since is not None:
            since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(instance.offline_since))
            raise Unreachable(
                f"{instance.quoted} is offline since {since} ({instance.trouble}); nothing was sent. "
                "See `opencode-connected status` on its machine"
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
            for other in self._instances.values()
            if other is not besides
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

    async def _apply(self, change: Change) -> None:
        match change:
            case Appeared(endpoint):
                instance = self._instances.get(endpoint.name)
                if instance is None:
                    instance = Instance(endpoint, self._transport, self._credentials, self._settings.health_timeout)
                    self._instances[endpoint.name] = instance
                await instance.connect_to(endpoint)
            case Departed(name, clean):
                instance = self._instances[name]
                await instance.depart(closed=clean)
                # One that never was an OpenCode is nothing to miss, and costs whoever invents names nothing.
                if clean or not instance.was_connected:
                    del self._instances[name]
                self._forget_departed(instance.endpoint.client)
            case ScanDone():
                self._scanned.set()

    def _forget_departed(self, client: str | None) -> None:
        departed = [
            instance
            for instance in self._instances.values()
            if not instance.is_registered and instance.endpoint.client == client
        ]
        departed.sort(key=lambda instance: instance.offline_since or 0.0)
        oldest = time.time() - OFFLINE_KEPT
        too_many = len(departed) - (MAX_DEPARTED if client else MAX_DEPARTED_PLAIN)
        for index, instance in enumerate(departed):
            if index < too_many or (instance.offline_since or 0.0) < oldest:
                del self._instances[instance.name]

    async def _settle(self) -> None:
        try:
            async with asyncio.timeout(SCAN_TIMEOUT):
                await self._scanned.wait()
            async with asyncio.timeout(self._settings.health_timeout):
                waiting = [i for i in self._instances.values() if not i.settled.is_set()]
                while waiting:
                    before = len(waiting)
                    waits = [asyncio.ensure_future(instance.settled.wait()) for instance in waiting]
                    try:
                        await asyncio.wait(waits, timeout=SETTLE_QUIET)
                    finally:
                        for wait in waits:
                            wait.cancel()
                    waiting = [instance for instance in waiting if not instance.settled.is_set()]
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
