"""One registration of the fleet: the connection to its agent, and an instance for each directory that it works in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_fleet.agent import Capability
from opencode_fleet.connection import InstanceConnection
from opencode_fleet.events import StatusChanged
from opencode_fleet.instance import Instance
from opencode_fleet.model import Runs, Workplace
from opencode_fleet.naming import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from opencode_fleet.connection import Connect
    from opencode_fleet.credentials import Credentials
    from opencode_fleet.events import Event
    from opencode_fleet.model import Snapshot
    from opencode_fleet.transports.base import Endpoint, Transport

    Listener = Callable[[Instance, Event | None], None]

MAX_INSTANCES = 200
"""Directories of one agent that are shown, whatever it tells."""


class Registered:
    """A registration's connection and instances; the first instance has the registration's own name.

    `taken` are the names of the rest of the fleet, `tell` hears every event of every instance. `adopt` returns an
    instance of the same machine's directory that an ended registration left behind, if there is one.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        credentials: Credentials,
        health_timeout: float,
        *,
        find_agent: Connect,
        taken: Callable[[], set[str]],
        adopt: Callable[[Endpoint, str], Instance | None],
        tell: Listener,
    ) -> None:
        self.connection = InstanceConnection(
            endpoint, transport, credentials, health_timeout=health_timeout, places=self, find_agent=find_agent
        )
        self._adopt = adopt
        self.first = self._adopted(endpoint.directory) or Instance(self.connection, endpoint.name, endpoint.directory)
        self.first.name = endpoint.name
        self._further: dict[str, Instance] = {}
        self._taken = taken
        self._tell_fleet = tell

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All of its instances, the registration's own first."""
        return (self.first, *self._further.values())

    def rename(self, name: str) -> None:
        """Give up `name`, which a registration has now, if it was only made up here."""
        for directory, instance in self._further.items():
            if instance.name == name:
                workplace = Workplace(directory=directory)
                instance.name = name_of(workplace, self.connection.endpoint, self._taken())
                self._tell(instance, None)

    def _adopted(self, directory: str) -> Instance | None:
        instance = self._adopt(self.connection.endpoint, directory)
        if instance is not None:
            instance.move_to(self.connection)
        return instance

    async def connect_to(self, endpoint: Endpoint) -> None:
        """(Re)start at `endpoint`."""
        for instance in self.instances:
            instance.closed_since = None
        if endpoint.directory != self.connection.endpoint.directory and endpoint.directory in self._further:
            # Another launcher holds the line now, and its directory is the registration's own.
            self._further.pop(endpoint.directory)
        await self.connection.connect_to(endpoint)

    async def depart(self, *, closed: bool = False) -> None:
        """The registration is gone. `closed`: somebody closed it there, in good order."""
        why = "not connected: asleep, off, or its launcher ended"
        if closed:
            why = "it was closed there"
            if self.connection.can(Capability.OUTLIVES) and (running := self._running()):
                why += f", {running} turn{'s go' if running > 1 else ' goes'} on"
        if closed:
            for instance in self.instances:
                instance.close()
        await self.connection.depart(why=why)

    def give_up(self, instance: Instance) -> bool:
        """Leave an instance to another registration; return whether this one still has its own."""
        self._further = {path: further for path, further in self._further.items() if further is not instance}
        return instance is not self.first

    def is_quiet(self, seconds: float) -> bool:
        """Whether something runs that nothing was heard of for so long."""
        return self.connection.connected.is_set() and any(i.state.is_quiet(seconds) for i in self.instances)

    @property
    def turns_go_on(self) -> bool:
        """Whether it left turns behind that outlive it."""
        return self.connection.can(Capability.OUTLIVES) and self._running() > 0

    def _running(self) -> int:
        # What was accepted a moment ago runs too, though nothing was told of it yet.
        return sum(len({*instance.state.busy_roots(), *instance.posting}) for instance in self.instances)

    # -- what its connection tells (see `connection.Places`) -----------------------------------------------------

    def reset(self, snapshot: Snapshot) -> None:
        """Take over a snapshot: its workplaces are all that there are now."""
        self._place(snapshot.workplaces[:MAX_INSTANCES])
        alone = not self.connection.can(Capability.DIRECTORIES)
        directories = {session.id: session.directory for session in snapshot.sessions}
        for instance in self.instances:
            here = instance.state.directory
            sessions = [s for s in snapshot.sessions if alone or s.directory == here]
            runs = snapshot.runs if alone else _of(snapshot.runs, lambda i, here=here: directories.get(i) == here)  # type: ignore[misc] # mypy takes no default of a lambda
            instance.state.reset(here, runs, sessions)
            self._tell(instance, None)

    def _place(self, workplaces: list[Workplace]) -> None:
        own = self._own(workplaces)
        if own is not None and own.directory != self.first.state.directory:
            self.first.state.directory = own.directory
        wanted = {place.directory: place for place in workplaces if place is not own}
        wanted.pop(self.first.state.directory, None)
        for directory in [known for known in self._further if known not in wanted]:
            gone = self._further.pop(directory)
            gone.close()
            self._tell_fleet(gone, None)
        new = [place for directory, place in wanted.items() if directory not in self._further]
        taken = self._taken() if new else set()
        for place in new:
            taken.add(self._add(place, taken).name)

    def _own(self, workplaces: Iterable[Workplace]) -> Workplace | None:
        """Return the workplace that the registration itself is for; with one directory it is that one."""
        places = list(workplaces)
        if not self.connection.can(Capability.DIRECTORIES):
            return places[0] if places else None
        endpoint = self.connection.endpoint
        return next(
            (p for p in places if p.directory == endpoint.directory),
            next((p for p in places if p.name == endpoint.name), None),
        )

    def _add(self, place: Workplace, taken: Container[str]) -> Instance:
        instance = self._adopted(place.directory)
        if instance is None:
            name = name_of(place, self.connection.endpoint, taken)
            instance = Instance(self.connection, name, place.directory)
        self._further[place.directory] = instance
        return instance

    def refresh(self, runs: Runs, events: list[Event], directory_of: Callable[[str], str | None]) -> None:
        """Take over what runs, then again the run state in `events`, which came while it was fetched."""
        for instance in self.instances:
            here = instance.state.directory
            instance.state.refresh(_of(runs, lambda i, here=here: directory_of(i) in {None, here}))  # type: ignore[misc] # as above
            instance.state.replay(e for e in events if directory_of(e.session_id) in {None, here})
            instance.version += 1
            self._tell_fleet(instance, None)

    def take(self, event: Event, directory: str | None) -> None:
        """Take over an event of a session in `directory`; None: the agent's only one."""
        if directory is None or directory == self.first.state.directory:
            self._tell(self.first, event)
            return
        instance = self._further.get(directory)
        if instance is None:
            # Only what is allowed there is told at all; what begins to run there is to be seen.
            begins = isinstance(event, StatusChanged) and event.status is not None
            if not (directory and begins and len(self._further) < MAX_INSTANCES):
                return
            instance = self._add(Workplace(directory=directory), self._taken())
        self._tell(instance, event)

    def changed(self) -> None:
        """Hear that the connection was made or lost."""
        for instance in self.instances:
            self._tell(instance, None)

    def _tell(self, instance: Instance, event: Event | None) -> None:
        instance.tell(event)
        self._tell_fleet(instance, event)


def _of(runs: Runs, is_here: Callable[[str], bool]) -> Runs:
    return Runs(
        statuses={session_id: status for session_id, status in runs.statuses.items() if is_here(session_id)},
        asks=[ask for ask in runs.asks if is_here(ask.session_id)],
    )
