"""Prints what a noisy tool sends through the tunnel: events and messages, straight and behind the guard.

python tests/bench/thinning.py [--json] [--lines N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from bench.figures import Figure, show
from bench.guard import agents, guard_process
from support.opencodes.scripted_model import ScriptedModel
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_connected.guard.upstream import Target
    from support.opencodes.opencode import ServedOpenCode

_KEY = "the-key-of-the-benchmark"
_SECONDS = 120.0
_MAX_OF_BEFORE = 0.05
"""Of the bytes of events, what may be left of a noisy tool's."""


class Tapped:
    """What one stream of events brought so far."""

    def __init__(self) -> None:
        self.size = 0
        self.kinds: list[str] = []

    async def read(self, client: httpx.AsyncClient, path: str) -> None:
        """Read until the stream ends."""
        async with client.stream("GET", path) as stream:
            async for line in stream.aiter_lines():
                self.size += len(line.encode()) + 1
                if line.startswith("data:"):
                    self.kinds.append(json.loads(line[5:])["type"])

    def has(self, *kinds: str) -> bool:
        """Tell whether an event of one of these kinds came."""
        return any(kind in kinds for kind in self.kinds)


@asynccontextmanager
async def tapped(client: httpx.AsyncClient, path: str) -> AsyncIterator[Tapped]:
    """Hold a stream of events open."""
    stream = Tapped()
    task = asyncio.create_task(stream.read(client, path))
    try:
        await eventually_async(lambda: stream.kinds, "the stream", within=_SECONDS)
        yield stream
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def measure_one(served: ServedOpenCode, target: Target, lines: int) -> list[Figure]:
    """Run a tool that prints that many lines, fifty a second."""
    second = target.generation == 2
    root, events = ("/api/session", "/api/event") if second else ("/session", "/event")
    async with (
        guard_process(target, served.cwd) as (url, _, _),
        httpx.AsyncClient(base_url=served.url, auth=served.auth, timeout=_SECONDS, trust_env=False) as straight,
        httpx.AsyncClient(base_url=url, auth=("opencode", _KEY), timeout=_SECONDS, trust_env=False) as through,
    ):
        body = {"location": {"directory": str(served.cwd)}} if second else {}
        made = (await straight.post(root, json=body)).raise_for_status().json()
        session = f"{root}/{(made['data'] if second else made)['id']}"
        noise = (
            f'for i in $(seq {lines}); do echo "test $i of a suite that says a line for each: ok"; sleep 0.02; done'
        )
        async with tapped(straight, events) as all_told, tapped(through, events) as thinned:
            prompt = f"[BASH:{noise}]"
            sent = {"text": prompt} if second else {"parts": [{"type": "text", "text": prompt}]}
            (await straight.post(f"{session}/{'prompt' if second else 'prompt_async'}", json=sent)).raise_for_status()
            ends = ("session.idle", "session.execution.succeeded")
            await eventually_async(
                lambda: all_told.has(*ends) and thinned.has(*ends),
                "the end of the turn",
                within=lines * 0.1 + _SECONDS,
            )
        pages = [
            (await client.get(f"{session}/message?limit=10")).raise_for_status() for client in (straight, through)
        ]
    name = f"OpenCode {target.generation}"
    limit = all_told.size / 1000 * _MAX_OF_BEFORE if target.generation == 1 else None
    return [
        Figure(f"{name}: events of {lines} lines, straight", all_told.size / 1000, "kB"),
        Figure(f"{name}: events of {lines} lines, behind the guard", thinned.size / 1000, "kB", limit),
        Figure(f"{name}: the turn's messages, straight", len(pages[0].content) / 1000, "kB"),
        Figure(f"{name}: the turn's messages, behind the guard", len(pages[1].content) / 1000, "kB"),
    ]


async def measure(lines: int) -> list[Figure]:
    """Measure before both generations."""
    with (
        tempfile.TemporaryDirectory() as name,
        ScriptedModel() as model,
        agents(Path(name), model, asks=False) as running,
    ):
        return [figure for served, target in running for figure in await measure_one(served, target, lines)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--lines", type=int, default=1_500, help="that the tool prints (%(default)s)")
    options = parser.parse_args()
    show("A noisy tool through the guard", asyncio.run(measure(options.lines)), as_json=options.json)


if __name__ == "__main__":
    main()
