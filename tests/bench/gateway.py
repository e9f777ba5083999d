"""Prints what the gateway costs: OAuth and Caddy's TLS in front, beside a child on stdio; and what it takes at once.

python tests/bench/gateway.py [--json] [--runs N] [--sessions N]

Clients, Caddy, gateway, server and OpenCode share this machine's processors. Compare seconds with those of the same
run, and with nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from bench.figures import Figure, show
from support.chat.mcp_client import relay_client
from support.fleet.registry import register, registration
from support.gateway.crowd import ERAS, all_send, crowd
from support.gateway.public_gateway import PublicGateway
from support.opencodes.fake_fleet import FakeFleet
from support.opencodes.opencode import OpenCodeHome, ServedOpenCode, find_opencode
from support.opencodes.scripted_model import ScriptedModel
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psutil

    from support.chat.mcp_client import ToolClient

FLEET = 3
"""Instances that `instances` lists."""
OPENCODES = 2
"""Real ones that the crowd speaks to."""
STARTS = 5
WARM_UP = 10
"""Calls that are not counted."""
MOST_ADDED_MS = 10
MOST_MEMORY_MB = 300
MOST_ALONE_MB = 100
CROWD_SECONDS = 40.0
"""All turns must run at once by then: the gateway's own limit is 45 s a call."""
BARE_START = "import fastmcp.server"
"""What any service on the gateway's library does at its start."""


async def calls(runs: int) -> list[Figure]:
    """Measure `instances` through all of it and on stdio, by turns, in both eras; and the memory afterwards."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fleet = stack.enter_context(FakeFleet(directory / "registry"))
        fleet.add(FLEET)
        gateway = stack.enter_context(PublicGateway(directory, fleet.registry_dir))
        (token,) = await gateway.sign_in(["ann"])
        figures = []
        async with AsyncExitStack() as connected:
            clients: dict[tuple[str, str], ToolClient] = {}
            for era in ERAS:
                straight = relay_client(fleet.registry_dir, era=era)
                clients["stdio", era] = await connected.enter_async_context(straight)
                through = gateway.client(token, era=era)
                clients["gateway", era] = await connected.enter_async_context(through)
            for client in clients.values():
                await eventually_async(partial(all_known, client), "the fleet")
            seconds = await by_turns(clients, runs)
            for era in ERAS:
                figures += compared(era, seconds["stdio", era], seconds["gateway", era])
            figures += memory(gateway, f"{runs} calls of each era")
    return figures


async def all_known(client: ToolClient) -> bool:
    """Tell whether the fleet is listed, and all of it idle."""
    rows = (await client.call("instances")).structured["instances"]
    return [row["state"] for row in rows] == ["idle"] * FLEET


async def by_turns(clients: dict[tuple[str, str], ToolClient], runs: int) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of so many calls of each client."""
    seconds: dict[tuple[str, str], list[float]] = {which: [] for which in clients}
    for run in range(-WARM_UP, runs):
        for which, client in clients.items():
            began = time.monotonic()
            answer = await client.call("instances")
            took = time.monotonic() - began
            assert not answer.is_error, answer.text
            if run >= 0:
                seconds[which].append(took)
    return seconds


def compared(era: str, straight: list[float], through: list[float]) -> list[Figure]:
    """Put the two beside each other."""
    alone, whole = statistics.median(straight) * 1000, statistics.median(through) * 1000
    return [
        Figure(f"{era}: instances on stdio, p50", alone, "ms"),
        Figure(f"{era}: instances on stdio, p99", percentile(straight, 99) * 1000, "ms"),
        Figure(f"{era}: through TLS, OAuth and the gateway, p50", whole, "ms"),
        Figure(f"{era}: through TLS, OAuth and the gateway, p99", percentile(through, 99) * 1000, "ms"),
        Figure(f"{era}: the way adds, p50", whole - alone, "ms", MOST_ADDED_MS),
        Figure(f"{era}: times stdio, p50", whole / alone, "times"),
    ]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that so many of a hundred are below."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def memory(gateway: PublicGateway, after: str) -> list[Figure]:
    """Measure the gateway with its children, and say how many these are."""
    children = gateway.process.children(recursive=True)
    resident, proportional = memory_of([gateway.process, *children])
    alone, its_share = memory_of([gateway.process])
    return [
        Figure(f"after {after}: gateway without its children, RSS", alone, "MB", MOST_ALONE_MB),
        Figure(f"after {after}: gateway without its children, PSS", its_share, "MB"),
        Figure(f"after {after}: gateway and children, RSS", resident, "MB", MOST_MEMORY_MB),
        Figure(f"after {after}: gateway and children, PSS", proportional, "MB"),
        Figure(f"after {after}: Caddy beside it, RSS", memory_of([gateway.caddy.process])[0], "MB"),
        Figure(f"after {after}: children, one server behind it", len(children), "", len(ERAS)),
    ]


def memory_of(processes: Sequence[psutil.Process]) -> tuple[float, float]:
    """Return the resident and the proportional memory of processes in MB."""
    resident = proportional = 0
    for process in processes:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        resident += kilobytes["Rss"]
        proportional += kilobytes["Pss"]
    return resident / 1000, proportional / 1000


def starts() -> list[Figure]:
    """Measure from the start of the process to a good /healthz, by turns with a bare import."""
    bare, ready = [], []
    with tempfile.TemporaryDirectory() as scratch, FakeFleet(Path(scratch, "registry")) as fleet:
        fleet.add(FLEET)
        gateway = PublicGateway(Path(scratch), fleet.registry_dir)
        for run in range(-1, STARTS):  # the first start warms the machine's caches
            began = time.monotonic()
            subprocess.run([sys.executable, "-c", BARE_START], check=True)
            imported = time.monotonic() - began
            healthy = start_of(gateway)
            if run >= 0:
                bare.append(imported)
                ready.append(healthy)
    return [
        Figure(f"python -c {BARE_START!r}, median", statistics.median(bare), "s"),
        Figure("start until /healthz is good, its child warm, median", statistics.median(ready), "s"),
        Figure("times the bare import", statistics.median(ready) / statistics.median(bare), "times"),
    ]


def start_of(gateway: PublicGateway) -> float:
    """Start it, end it again, and return the seconds until it was healthy."""
    began = time.monotonic()
    gateway.start()
    try:
        with httpx.Client(base_url=gateway.url, trust_env=False) as http:
            eventually(lambda: http.get("/healthz").status_code == 200, "a healthy gateway")
        return time.monotonic() - began
    finally:
        gateway.stop()


async def at_once(count: int) -> list[Figure]:
    """Have so many sessions of both eras send at once to real OpenCodes, and count what went wrong."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = stack.enter_context(ScriptedModel())
        home = OpenCodeHome(directory / "home", model.base_url, binary=find_opencode())
        names = [f"laptop-{number}" for number in range(OPENCODES)]
        for name in names:
            opencode = stack.enter_context(ServedOpenCode(home, directory / name))
            register(directory / "registry", registration(name, opencode.port, cwd=str(opencode.cwd)))
        gateway = stack.enter_context(PublicGateway(directory, directory / "registry"))
        async with crowd(gateway, names, count, "crowd") as chats:
            began = time.monotonic()
            wrong = await all_send(chats, model, gateway, within=CROWD_SECONDS)
            took = time.monotonic() - began
        for what in wrong:
            print(what, file=sys.stderr)
        case = f"{count} sessions send at once to {OPENCODES} real OpenCodes"
        return [
            Figure(f"{case}: crossed, lost or doubled", len(wrong), "", 0),
            Figure(f"{case}: until all are answered", took, "s"),
            *memory(gateway, f"{count} sessions"),
        ]


async def measure(runs: int, sessions: int) -> list[Figure]:
    """Measure everything."""
    return [*await calls(runs), *starts(), *await at_once(sessions)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=300, help="calls of each kind and era (%(default)s)")
    parser.add_argument("--sessions", type=int, default=50, help="chat sessions at once (%(default)s)")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.runs, options.sessions))
    show("The gateway", figures, as_json=options.json)


if __name__ == "__main__":
    main()
