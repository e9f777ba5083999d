"""Prints the server's figures: `instances` with a fleet behind it, hung members, and discovery.

python tests/bench/server.py [--json] [--runs N]
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

from bench.figures import Figure, show
from support.chat.mcp_client import RelayClient, relay_client
from support.chat.raw_stdio import RawServer, raw_server
from support.fleet.registry import register, registration
from support.opencodes.fake_fleet import FakeFleet
from support.opencodes.opencode import OpenCodeHome, ServedOpenCode, find_opencode
from support.opencodes.scripted_model import ScriptedModel
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


_FLEET_SECONDS = 60.0


async def instances_at(count: int, runs: int, *, sessions: int = 1, hung: int = 0) -> list[Figure]:
    """Measure `instances` with a fleet of `count`, of which `hung` never answer, each with so many sessions."""
    with tempfile.TemporaryDirectory() as scratch, FakeFleet(Path(scratch, "registry")) as fleet:
        fleet.add(count - hung, sessions=sessions)
        if hung:
            fleet.add(hung, hung=True)
        started = time.monotonic()
        async with raw_server(fleet.registry_dir) as server:
            await server.call("instances")
            first = time.monotonic() - started
            await eventually_async(
                lambda: knows(server, count, idle=count - hung), "the fleet", within=_FLEET_SECONDS
            )
            known = time.monotonic() - started
            alone = await median_of(runs, lambda: server.call("instances"))
            resident, proportional = memory_of(server.pid)
        async with relay_client(fleet.registry_dir) as relay:
            await relay.call("instances")
            seen = await median_of(runs, lambda: relay.call("instances"))
        left = len(list(fleet.registry_dir.glob("*.json")))
    case = f"{count}" + (f", {hung} hung" if hung else "") + (f", {sessions} sessions each" if sessions > 1 else "")
    return [
        Figure(f"{case}: instances, median", alone * 1000, "ms", 20),
        Figure(f"{case}: the same, as the SDK's client sees it", seen * 1000, "ms"),
        Figure(f"{case}: memory, RSS", resident, "MB", 150),
        Figure(f"{case}: memory, PSS", proportional, "MB"),
        Figure(f"{case}: start to the first answer", first, "s"),
        Figure(f"{case}: start to all known", known, "s"),
        Figure(f"{case}: registrations deleted", count - left, "files", 0),
    ]


async def knows(server: RawServer, count: int, *, idle: int) -> bool:
    """Tell whether all instances are listed, and so many of them idle."""
    listed = json.loads(await server.call("instances"))["result"]["structuredContent"]
    states = Counter(row["state"] for row in listed["instances"]) + Counter(listed.get("left_out"))
    return states.total() == count and states["idle"] == idle


async def discovery(opencode: ServedOpenCode, registry_dir: Path, runs: int) -> Figure:
    """Measure from a registration's file to its row, for a healthy OpenCode that comes and goes."""
    name = "newcomer"
    fields = registration(name, opencode.port, cwd=str(opencode.cwd))
    delays = []
    async with relay_client(registry_dir) as relay:
        for _ in range(runs):
            file = register(registry_dir, fields)
            written = time.monotonic()
            await eventually_async(lambda: lists_idle(relay, name), "the newcomer")
            delays.append(time.monotonic() - written)
            register(registry_dir, {**fields, "closedAt": fields["connectedAt"]})
            await eventually_async(lambda: is_gone(relay, name), "its leave")
            file.unlink()
    return Figure("a new registration until it is listed, median", statistics.median(delays), "s", 0.3)


async def lists_idle(relay: RelayClient, name: str) -> bool:
    """Tell whether `name` is listed as idle."""
    rows = (await relay.call("instances")).structured["instances"]
    return any(row["name"] == name and row["state"] == "idle" for row in rows)


async def is_gone(relay: RelayClient, name: str) -> bool:
    """Tell whether `name` is not listed any more."""
    return all(row["name"] != name for row in (await relay.call("instances")).structured["instances"])


async def median_of(runs: int, call: Callable[[], Awaitable[object]]) -> float:
    """Return the median seconds of a call."""
    times = []
    for _ in range(runs):
        started = time.monotonic()
        await call()
        times.append(time.monotonic() - started)
    return statistics.median(times)


def memory_of(pid: int) -> tuple[float, float]:
    """Return a process's resident and proportional memory in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return kilobytes["Rss"] / 1000, kilobytes["Pss"] / 1000


async def measure(runs: int) -> list[Figure]:
    """Measure everything."""
    figures = []
    for count in (1, 100, 500):
        figures += await instances_at(count, runs)
    figures += await instances_at(100, runs, sessions=500)
    figures += await instances_at(100, runs, hung=5)
    with tempfile.TemporaryDirectory() as scratch, ScriptedModel() as model:
        home = OpenCodeHome(Path(scratch, "home"), model.base_url, binary=find_opencode())
        with ServedOpenCode(home, Path(scratch, "project")) as opencode:
            figures.append(await discovery(opencode, Path(scratch, "discovery"), max(3, runs // 5)))
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=30, help="calls a figure (%(default)s)")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.runs))
    show("The server", figures, as_json=options.json)


if __name__ == "__main__":
    main()
