"""One run: persons send and decide over machines, while servers are killed, lines cut and OpenCodes restarted.

The seed gives what befalls whom and how long after; when exactly that comes in the work of the others is up to the
machine.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from support.chaos.ledger import Ledger, Machine
from support.chaos.person import Person
from support.chat.mortal_server import MortalServer
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from support.chaos.person import Changing
    from support.line.fake_faulty_line import FaultyLine

SERVERS: Final = 2
"""Copies of the server with one journal."""
DECIDERS: Final = 12
_LONGEST_CUT: Final = 0.5
"""Seconds for which a cut line stays so."""
_SETTLED_WITHIN: Final = 180.0
_CALL_SECONDS: Final = 10


class Target(Machine, Protocol):
    """A machine of the run that can be restarted."""

    async def restart(self) -> None:
        """End its OpenCode in mid-air, and return when it is there again."""


@dataclass(frozen=True)
class Plan:
    """What is to happen. Times are the mean seconds between two; 0: never."""

    seed: int
    prompts: Mapping[tuple[str, str], Sequence[str]]
    """By machine and session, in order."""
    kills: float
    cuts: float
    restarts: float
    most: int | None = None
    """How often each befalls at most, so that a slow machine comes to an end; None: as long as somebody sends."""


@dataclass(frozen=True)
class Site:
    """Where it happens: machines and their lines by name, a registry, and the directory of the servers' journal."""

    registry: Path
    state: Path
    machines: Mapping[str, Target]
    lines: Mapping[str, FaultyLine]
    changing: Changing | None = None
    whens: Sequence[str] = ("now",)
    """See `Person`."""


@dataclass
class Report:
    """What happened."""

    ledger: Ledger
    faults: list[str]
    seconds: float
    deaths: int = 0
    cuts: int = 0
    restarts: int = 0
    watchers: list[str] = field(default_factory=list)


async def run(plan: Plan, site: Site) -> Report:
    """Carry out a plan."""
    report = Report(Ledger(), [], 0.0)
    env = {"RELAY_STATE_DIR": str(site.state), "SEND_TIMEOUT_MS": str(_CALL_SECONDS * 1000)}
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(MortalServer(site.registry, env)) for _ in range(SERVERS)]
        person = Person(servers, report.ledger, random.Random(f"{plan.seed} person"), site.changing, site.whens)
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as watching:
            for number, server in enumerate(servers):
                report.watchers.append(f"watcher {number}")
                watching.create_task(person.watch(report.watchers[-1], server, is_over))
            async with _while(person.decide, DECIDERS):
                async with _Storm(plan, servers, site, report).blowing(), asyncio.TaskGroup() as sending:
                    for (machine, session), texts in plan.prompts.items():
                        sending.create_task(_send_all(person, machine, session, texts))
                for line in site.lines.values():
                    line.rate = 0.0
                # What is never settled is found by the ledger.
                with suppress(AssertionError):
                    settled = partial(report.ledger.is_settled, site.machines)
                    await eventually_async(settled, within=_SETTLED_WITHIN)
            is_over.set()
        report.deaths = sum(server.deaths for server in servers)
    report.seconds = time.monotonic() - began
    report.faults = report.ledger.faults(site.machines)
    return report


async def _send_all(person: Person, machine: str, session: str, texts: Sequence[str]) -> None:
    for text in texts:
        await person.send(machine, session, text)


@asynccontextmanager
async def _while(work: Callable[[], Awaitable[None]], count: int) -> AsyncIterator[None]:
    """Do something without end, several times at once, while the block runs. What it raises ends the block too."""

    async def forever() -> None:
        await work()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(forever()) for _ in range(count)]
        yield
        for task in tasks:
            task.cancel()


class _Storm:
    """Breaks things at random."""

    def __init__(self, plan: Plan, servers: Sequence[MortalServer], site: Site, report: Report) -> None:
        self._plan = plan
        self._servers = servers
        self._site = site
        self._report = report

    @asynccontextmanager
    async def blowing(self) -> AsyncIterator[None]:
        """Break things while the block runs; what was broken when it ends is whole again."""
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._often(self._plan.kills, "kills", self._kill, is_over))
            group.create_task(self._often(self._plan.cuts, "cuts", self._cut, is_over))
            group.create_task(self._often(self._plan.restarts, "restarts", self._restart, is_over))
            yield
            is_over.set()

    async def _often(
        self, mean: float, what: str, deed: Callable[[random.Random], Awaitable[None]], is_over: asyncio.Event
    ) -> None:
        draw = random.Random(f"{self._plan.seed} {what}")
        left = itertools.count() if self._plan.most is None else range(self._plan.most)
        for _ in left if mean else ():
            with suppress(TimeoutError):
                async with asyncio.timeout(draw.expovariate(1 / mean)):
                    await is_over.wait()
            if is_over.is_set():
                return
            await deed(draw)

    async def _kill(self, draw: random.Random) -> None:
        server = draw.choice(self._servers)
        await server.kill()
        await server.start()

    async def _cut(self, draw: random.Random) -> None:
        line = self._site.lines[draw.choice(list(self._site.lines))]
        self._report.cuts += 1
        await line.cut()
        await asyncio.sleep(draw.uniform(0, _LONGEST_CUT))
        await line.mend()

    async def _restart(self, draw: random.Random) -> None:
        self._report.restarts += 1
        await self._site.machines[draw.choice(list(self._site.machines))].restart()
