"""Prints what recording and telling costs: event to `wait`'s answer, `inbox` over many instances, appends a second.

python tests/bench/journal.py [--json] [--instances N] [--events N]

All in one process, over scripted agents without a line: what is measured is recorder, journal and tools.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.figures import Figure, show
from opencode_fleet.events import StatusChanged
from opencode_fleet.model import Status
from opencode_journal.entries import ASK_OPENED, TURN_ENDED
from opencode_journal.journal import Journal
from opencode_mcp.tools.inbox import inbox
from opencode_mcp.tools.instances import instances
from opencode_mcp.tools.wait import wait
from support.fleet.fake_relay import FakeRelay, fake_relay, structured
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mcp_types import CallToolResult

MILLISECONDS = 1_000
CALLS = 50
APPENDS = 20_000
WAITING = 0.1
"""Of the instances, those that ask for something."""


async def measure(count: int, events: int) -> list[Figure]:
    """Return the figures for so many instances."""
    agents = {f"laptop_{number}": FakeAgent(f"/home/ann/project-{number}") for number in range(count)}
    for number, agent in enumerate(agents.values()):
        session = agent.add_session(agent.places[0].directory, "A title that is about as long as titles are").id
        if number < count * WAITING:
            agent.add_ask(session)
    with tempfile.TemporaryDirectory() as directory:
        figures = [_appends(Path(directory) / "appends")]
        async with AsyncExitStack() as stack:
            relay = await stack.enter_async_context(
                fake_relay(Path(directory) / "state", lost_after=3600.0, **agents)
            )
            await eventually_async(lambda: all(each.connected.is_set() for each in relay.fleet.all_instances()))
            asking = sum(bool(agent.open) for agent in agents.values())
            await eventually_async(lambda: len(relay.entries(ASK_OPENED)) == asking)
            figures += await _told(relay, list(agents.values())[-1], events)
            figures += [
                await _call(f"inbox at {count}", lambda: inbox(relay.face), 20.0),
                await _call(f"instances at {count}", lambda: instances(relay.face), None),
                await _bytes("inbox", "asks", lambda: inbox(relay.face)),
                await _bytes("instances", "instances", lambda: instances(relay.face)),
                Figure("memory of all", psutil.Process().memory_info().rss / 1e6, "MB"),
            ]
    return figures


async def _told(relay: FakeRelay, agent: FakeAgent, events: int) -> list[Figure]:
    """Measure from an agent's word that its turn has ended to the answer of a wait for it."""
    session = next(iter(agent.made))
    cursor = str(relay.journal.cursor())
    took = []
    for _ in range(events):
        agent.tell(StatusChanged(session, Status()))
        waiting = asyncio.create_task(wait(relay.face, cursor))
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        agent.tell(StatusChanged(session, None))
        told = structured(await waiting)
        took.append((time.perf_counter() - began) * MILLISECONDS)
        assert len(told["ended"]) == 1
        cursor = told["cursor"]
    assert len(relay.entries(TURN_ENDED)) == min(events, 1_000)
    return [
        Figure("event to wait's answer, p50", statistics.median(took), "ms", 20.0),
        Figure("event to wait's answer, p99", statistics.quantiles(took, n=100)[98], "ms", 100.0),
    ]


def _appends(directory: Path) -> Figure:
    journal = Journal(directory)
    began = time.perf_counter()
    for number in range(APPENDS):
        journal.append(TURN_ENDED, "laptop", f"ses_{number}", data={"title": "A title"})
    rate = APPENDS / (time.perf_counter() - began)
    journal.close()
    return Figure("appends a second", rate, "/s")


async def _call(what: str, call: Callable[[], Awaitable[CallToolResult]], limit: float | None) -> Figure:
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await call()
        took.append((time.perf_counter() - began) * MILLISECONDS)
    return Figure(f"{what}, p50", statistics.median(took), "ms", limit)


async def _bytes(what: str, rows: str, call: Callable[[], Awaitable[CallToolResult]]) -> Figure:
    result = await call()
    count = len(structured(result)[rows])
    return Figure(f"{what}, a row", len(result.model_dump_json()) / max(1, count), "bytes")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--events", type=int, default=500)
    parsed = parser.parse_args(arguments)
    figures = asyncio.run(measure(parsed.instances, parsed.events))
    show("journal, inbox and wait", figures, as_json=parsed.json)


if __name__ == "__main__":
    main()
