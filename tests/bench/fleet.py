"""Prints how a large fleet comes up and what it does in a storm of events, all of it scripted.

python tests/bench/fleet.py [--json] [--runs N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.fake_machines import fake_machines
from bench.figures import Figure, show
from opencode_fleet.transports.local_relay import MAX_INSTANCES
from support.chat.raw_stdio import RawServer, raw_server
from support.opencodes.fake_fleet import FakeFleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_SECONDS = 300.0
EVENTS_PER_SECOND = 5.0
"""Of each instance in the storm."""


async def counted(server: RawServer) -> Counter[str]:
    """Return how many instances are in which state."""
    listed = json.loads(await server.call("instances"))["result"]["structuredContent"]
    return Counter(row["state"] for row in listed["instances"]) + Counter(listed.get("left_out") or {})


async def until_known(server: RawServer, count: int) -> None:
    """Wait until so many instances are idle."""

    async def are_known() -> bool:
        return (await counted(server))["idle"] == count

    await eventually_async(are_known, f"{count} instances", within=_SECONDS)


async def cold(registry: Path, count: int, what: str, limit: float) -> AsyncIterator[Figure]:
    """Measure from the server's start until all of `count` are known."""
    started = time.monotonic()
    async with raw_server(registry) as server:
        await until_known(server, count)
        yield Figure(f"{what}: start to all known", time.monotonic() - started, "s", limit)
        # Of this process alone: what answers takes its share of the time.
        used = psutil.Process(server.pid).cpu_times()
        yield Figure(f"{what}: the server's processor time", used.user + used.system, "s", limit)


async def of_one_directory_each() -> AsyncIterator[Figure]:
    """Measure 500 and 1,000 instances."""
    with tempfile.TemporaryDirectory() as scratch, FakeFleet(Path(scratch, "registry")) as fleet:
        for more, limit in ((500, 3), (500, 6)):
            fleet.add(more)
            count = len(list(fleet.registry_dir.glob("*.json")))
            async for figure in cold(fleet.registry_dir, count, f"{count:,} instances", limit):
                yield figure


async def of_many_directories() -> AsyncIterator[Figure]:
    """Measure 100 machines with 50 directories each."""
    with tempfile.TemporaryDirectory() as scratch:
        registry = Path(scratch, "registry")
        async with fake_machines(registry, 100, 50):
            async for figure in cold(registry, 5_000, "100 machines with 50 directories each", 2):
                yield figure


async def in_a_storm(runs: int) -> AsyncIterator[Figure]:
    """Measure `instances` and a newcomer while 1,000 instances tell events."""
    with tempfile.TemporaryDirectory() as scratch, FakeFleet(Path(scratch, "registry")) as fleet:
        fleet.add(MAX_INSTANCES - 3)
        async with raw_server(fleet.registry_dir) as server:
            await until_known(server, MAX_INSTANCES - 3)
            fleet.storm(per_second=EVENTS_PER_SECOND)
            times = []
            for _ in range(runs):
                started = time.monotonic()
                await server.call("instances")
                times.append(time.monotonic() - started)
            p99 = statistics.quantiles(times, n=100)[-1]
            yield Figure("storm at 1,000: instances, 99 of 100", p99 * 1000, "ms", 400)
            newcomers = []
            for number in range(3):
                fleet.add(1)
                started = time.monotonic()
                await until_known(server, MAX_INSTANCES - 2 + number)
                newcomers.append(time.monotonic() - started)
            fleet.storm(per_second=0)
            yield Figure("storm at 1,000: a new registration until it is known", max(newcomers), "s", 0.5)


async def beyond_the_cap() -> AsyncIterator[Figure]:
    """Measure twice as many registrations as are taken."""
    with tempfile.TemporaryDirectory() as scratch, FakeFleet(Path(scratch, "registry")) as fleet:
        fleet.add(2 * MAX_INSTANCES)
        async for figure in cold(
            fleet.registry_dir, MAX_INSTANCES, "2,000 registrations, of which 1,000 are taken", 6
        ):
            yield figure
        async with raw_server(fleet.registry_dir) as server:
            await until_known(server, MAX_INSTANCES)
            said = b"registrations beyond" in await server.call("instances")
            yield Figure("2,000 registrations: that others are ignored is not said", float(not said), "", 0)


async def measure(runs: int) -> list[Figure]:
    """Measure everything."""
    figures = [figure async for figure in of_one_directory_each()]
    figures += [figure async for figure in of_many_directories()]
    figures += [figure async for figure in in_a_storm(runs)]
    figures += [figure async for figure in beyond_the_cap()]
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=300, help="calls in the storm (%(default)s)")
    options = parser.parse_args()
    show("The fleet", asyncio.run(measure(options.runs)), as_json=options.json)


if __name__ == "__main__":
    main()
