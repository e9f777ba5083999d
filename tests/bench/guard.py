"""Prints the guard's figures: what it adds to a call and to an event, and how much memory it takes.

python tests/bench/guard.py [--json] [--runs N]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil

from bench.figures import Figure, show
from opencode_connected.guard.upstream import Target
from support.opencodes.opencode import OpenCodeHome, ServedOpenCode, find_opencode
from support.opencodes.opencode2 import OpenCode2Home, ServedOpenCode2, find_opencode2
from support.opencodes.scripted_model import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_PROCESS = str(Path(__file__).with_name("guard_process.py"))
_KEY = "the-key-of-the-benchmark"
_SECONDS = 120.0


@asynccontextmanager
async def guard_process(target: Target, directory: Path) -> AsyncIterator[tuple[str, psutil.Process, int]]:
    """Run the guard in a process of its own; give its URL, and the bytes that it took before the guard."""
    arguments = (target.url, target.authorization or "", str(target.generation), target.version, str(directory))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        _PROCESS,
        *arguments,
        _KEY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        before, port = (int(word) for word in (await process.stdout.readline()).split())
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid), before
    finally:
        process.stdin.close()
        await process.wait()


@contextmanager
def agents(
    scratch: Path, model: ScriptedModel, *, asks: bool = True
) -> Iterator[list[tuple[ServedOpenCode, Target]]]:
    """Run an OpenCode of each generation."""
    home1 = OpenCodeHome(scratch / "home1", model.base_url, binary=find_opencode(), asks=asks)
    home2 = OpenCode2Home(scratch / "home2", model.base_url, binary=find_opencode2(), asks=asks)
    with (
        ServedOpenCode(home1, scratch / "project1") as served1,
        ServedOpenCode2(home2, scratch / "project2") as served2,
    ):
        header = httpx.Request("GET", "http://x", headers={})
        authorization = next(httpx.BasicAuth("opencode", served2.password).auth_flow(header)).headers["authorization"]
        yield [
            (served1, Target(served1.url, None, 1, "1.18.33")),
            (served2, Target(served2.url, authorization, 2, "2.0.15")),
        ]


async def pace(client: httpx.AsyncClient, method: str, path: str, body: object, runs: int) -> list[float]:
    """Measure calls one after the other, in seconds."""
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        answer = await client.request(method, path, json=body)
        found.append(time.perf_counter() - began)
        answer.raise_for_status()
    return found


async def event_times(client: httpx.AsyncClient, path: str, ready: asyncio.Event) -> float:
    """Return when the event came that a session has another title: the guard leaves the title itself out."""
    async with client.stream("GET", path) as stream:
        async for line in stream.aiter_lines():
            ready.set()
            if "session.renamed" in line or "session.updated" in line:
                return time.perf_counter()
    raise RuntimeError("the stream ended")


async def event_delay(straight: httpx.AsyncClient, through: httpx.AsyncClient, path: str, session: str) -> float:
    """Measure how much later an event comes through the guard, in seconds."""
    title = f"title {time.perf_counter_ns()}"
    readies = [asyncio.Event(), asyncio.Event()]
    reading = [
        asyncio.create_task(event_times(client, path, ready))
        for client, ready in zip((straight, through), readies, strict=True)
    ]
    async with asyncio.timeout(_SECONDS):
        for ready in readies:
            await ready.wait()
        (await straight.patch(session, json={"title": title})).raise_for_status()
        at_once, later = await asyncio.gather(*reading)
    return later - at_once


async def measure_one(served: ServedOpenCode, target: Target, runs: int) -> list[Figure]:
    """Measure before one OpenCode."""
    name = f"OpenCode {target.generation}"
    second = target.generation == 2
    async with (
        guard_process(target, served.cwd) as (url, process, before),
        httpx.AsyncClient(base_url=served.url, auth=served.auth, timeout=_SECONDS, trust_env=False) as straight,
        httpx.AsyncClient(base_url=url, auth=("opencode", _KEY), timeout=_SECONDS, trust_env=False) as through,
    ):
        root = "/api/session" if second else "/session"
        body = {"location": {"directory": str(served.cwd)}} if second else {}
        made = (await through.post(root, json=body)).raise_for_status().json()
        session = f"{root}/{(made['data'] if second else made)['id']}"
        figures = []
        for what, method, path, sent in (
            ("GET of a session", "GET", session, None),
            ("GET of messages", "GET", f"{session}/message", None),
            ("PATCH of a title", "PATCH", session, {"title": "a title"}),
        ):
            for client in (straight, through):
                await pace(client, method, path, sent, 5)
            spent = sum(process.cpu_times()[:2])
            # In turn, so that both see the same load of the machine.
            pairs = [
                (
                    (await pace(straight, method, path, sent, 1))[0],
                    (await pace(through, method, path, sent, 1))[0],
                )
                for _ in range(runs)
            ]
            spent = sum(process.cpu_times()[:2]) - spent
            plain, guarded = (statistics.median(times) * 1000 for times in zip(*pairs, strict=True))
            figures += [
                Figure(f"{name}: {what}, straight, median", plain, "ms"),
                Figure(f"{name}: {what}, what the guard adds", guarded - plain, "ms", 2.0),
                Figure(f"{name}: {what}, CPU of the guard, mean", spent * 1000 / runs, "ms"),
            ]
        events = "/api/event" if second else "/event"
        delays = [await event_delay(straight, through, events, session) * 1000 for _ in range(max(5, runs // 10))]
        figures += [
            Figure(f"{name}: an event, how much later, median", statistics.median(delays), "ms", 2.0),
            Figure(f"{name}: memory that the guard adds", (process.memory_info().rss - before) / 2**20, "MiB", 30.0),
        ]
    return figures


async def measure(runs: int) -> list[Figure]:
    """Measure before both generations."""
    with tempfile.TemporaryDirectory() as name, ScriptedModel() as model, agents(Path(name), model) as running:
        figures: list[Figure] = []
        for served, target in running:
            figures += await measure_one(served, target, runs)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=200, help="calls a figure (%(default)s)")
    options = parser.parse_args()
    show("The guard", asyncio.run(measure(options.runs)), as_json=options.json)


if __name__ == "__main__":
    main()
