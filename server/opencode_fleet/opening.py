"""New instances from afar: a directory of a machine is opened, seen in the fleet, and closed again.

Where that may be is its owner's to say, and its guard's to check; what runs in a directory outlives its closing, so
that is shown first and wants the handle of its plan (`plans`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from opencode_common.text import one_line, quote
from opencode_fleet.agent import Capability
from opencode_fleet.background import Background
from opencode_fleet.control import Done
from opencode_fleet.errors import InstanceError, Refused
from opencode_fleet.plans import Deed, Plans

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance

SEEN_WITHIN: Final = 20.0
"""Seconds in which what was opened is seen as an instance: its guard tells at once, and a slow line takes some."""
GONE_WITHIN: Final = 5.0


class Opener:
    """Opens and closes instances on the machines of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._plans = Plans()
        self._background = Background()

    async def open(self, name: str, directory: str) -> Done:
        """Open `directory` on the machine that `name` means: an instance of it, or the machine itself.

        The same call again opens nothing twice, and says what there is.

        Raises:
            NoSuchInstance, Refused, InstanceError: nothing was opened; the message says why.
        """
        host = await self._host(name)
        # It is brought to its end whoever stops waiting for it.
        return await asyncio.shield(self._background.start(self._open(host, directory.strip())))

    async def close(self, instance: Instance, plan: str = "") -> Done:
        """Close an instance that was opened from afar; while something runs there, that is shown first.

        Raises:
            Refused, InstanceError: it was not opened from afar, or its machine does not answer; nothing was closed.
        """
        if (told := self.did(plan)) is not None:
            return told
        await instance.refresh()
        instance.agent.controls.check_close(instance.state.directory)
        running = frozenset(instance.state.busy_roots())
        deed = Deed("close", (instance.name,))
        if plan:
            self._plans.use(plan, deed, running)
        elif running:
            sessions = ", ".join(f"session {root}" for root in sorted(running))
            would = (
                f"would be closed while it runs {sessions}; what runs there goes on, and can be neither seen nor "
                "stopped from afar then"
            )
            return Done("planned", would, instance.name, plan=self._plans.propose(deed, running))
        # As above.
        return await asyncio.shield(self._background.start(self._close_by(plan, instance)))

    def did(self, plan: str) -> Done | None:
        """Tell what a plan did that was used already; its instance may be gone. None: it was not, or there is none.

        Raises:
            Refused: there is no such plan, or not any more.
        """
        if not plan or (did := self._plans.used(plan)) is None:
            return None
        return Done("nothing", f"plan {plan} was used already, and nothing was done again; it did this: {did}")

    # -- opening -------------------------------------------------------------------------------------------------

    async def _host(self, name: str) -> Instance:
        """Return an instance on the machine that `name` means."""
        known = await self._fleet.instances()
        folded = name.strip().casefold()
        if not any(instance.name.casefold() == folded for instance in known):
            there = [each for each in known if each.connected.is_set() and each.can(Capability.DIRECTORIES)]
            machines = {_machine(each): each for each in there if _is_called(folded, each)}
            if len(machines) == 1:
                return next(iter(machines.values()))
            if machines:
                raise Refused(
                    f"several machines are called {one_line(name, 64)!r}; name an instance of the one meant"
                )
        return await self._fleet.find_live(name)

    async def _open(self, host: Instance, directory: str) -> Done:
        try:
            opened = await host.agent.controls.open(directory)
        except InstanceError as error:
            if not error.is_doubtful:
                raise
            says = f"{error}: whether it was opened is not known; the same call again opens nothing twice, and tells"
            return Done("unknown", says, host.name)
        where = quote(opened.directory, 300)

        def seen() -> Instance | None:
            return self._of(host, opened.directory)

        found = await self._until(lambda: seen() is not None, SEEN_WITHIN) and seen()
        if not found:
            return Done("unknown", f"{where} is open there, and not seen yet; `instances` lists it soon", host.name)
        if not opened.is_new:
            return Done("nothing", f"{where} is open already; `send` to it by that name", found.name)
        return Done("done", f"a new instance in {where}; `send` to it by that name", found.name)

    def _of(self, host: Instance, directory: str) -> Instance | None:
        """Return the instance of a directory of the same machine."""
        for each in self._fleet.all_instances():
            is_there = each.connected.is_set() and each.closed_since is None
            if is_there and each.state.directory == directory and _machine(each) == _machine(host):
                return each
        return None

    # -- closing -------------------------------------------------------------------------------------------------

    async def _close_by(self, plan: str, instance: Instance) -> Done:
        try:
            done = await self._close(instance)
        except InstanceError as error:
            self._plans.finish(plan, f"nothing, as {error}")
            raise
        self._plans.finish(plan, done.says)
        return done

    async def _close(self, instance: Instance) -> Done:
        directory = instance.state.directory
        try:
            is_seen_still = await instance.agent.controls.close(directory)
        except InstanceError as error:
            if not error.is_doubtful:
                raise
            says = f"{error}: whether it was closed is not known; see whether `instances` has it still"
            return Done("unknown", says, instance.name)
        if is_seen_still:
            says = "was closed; it may be listed still, as its owner lets that directory be worked in at any time"
            return Done("done", says, instance.name)
        await self._until(lambda: self._of(instance, directory) is None, GONE_WITHIN)
        return Done("done", "was closed; its sessions are kept, and `open` shows them again", instance.name)

    async def _until(self, is_so: Callable[[], bool], within: float) -> bool:
        """Wait until something can be seen in the fleet, and return whether it can."""
        told = asyncio.Event()
        unsubscribe = self._fleet.subscribe(lambda _instance, _event: told.set())
        try:
            async with asyncio.timeout(within):
                while not is_so():
                    told.clear()
                    await told.wait()
        except TimeoutError:
            return False
        finally:
            unsubscribe()
        return True


def _machine(instance: Instance) -> tuple[str | None, str]:
    return instance.endpoint.client, instance.endpoint.hostname


def _is_called(folded: str, instance: Instance) -> bool:
    """Tell whether this is what its machine is called: by the relay, or else by itself."""
    client, hostname = _machine(instance)
    called = {client} if client else {hostname, hostname.partition(".")[0]}
    return bool(folded) and folded in {each.casefold() for each in called if each}
