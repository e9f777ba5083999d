"""Prints what `send` adds to a prompt that is posted straight, with OpenCode of either generation behind its guard.

python tests/bench/send.py [--json] [--runs N]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from bench.figures import Figure, show
from support.chat.mcp_client import RelayClient, relay_client
from support.opencodes.attached import Attached1
from support.opencodes.driven import NAME
from support.opencodes.driven2 import Driven2
from support.opencodes.events import session_of, tapped
from support.opencodes.events2 import tapped2
from support.opencodes.opencode import OpenCodeHome, find_opencode
from support.opencodes.opencode2 import find_opencode2
from support.opencodes.scripted_model import ScriptedModel
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.opencodes.driven import Driven
    from support.opencodes.events import Event

PROMPT = "SLOW:20:0.03"
"""Twenty words, 30 ms apart: long enough that the first one and the end are told apart."""


@dataclass
class Straight:
    """The agent without relay and guard: a client, one of its sessions, and its tapped events."""

    client: httpx.AsyncClient
    session: str
    events: list[Event]
    path: str
    body: dict[str, object]
    first: str
    """The type of the event that brings text."""
    end: str

    async def post(self) -> tuple[float, float]:
        """Prompt; return the seconds to the first text and to the end."""
        self.events.clear()
        started = time.monotonic()
        (await self.client.post(self.path, json=self.body)).raise_for_status()
        await eventually_async(lambda: self._found(self.end), "the end of the turn")
        first, end = self._found(self.first), self._found(self.end)
        assert first
        assert end
        return first["at"] - started, end["at"] - started

    def _found(self, kind: str) -> Event | None:
        return next((event for event in self.events if event["type"] == kind and self._is_ours(event)), None)

    def _is_ours(self, event: Event) -> bool:
        found = event["data"].get("sessionID") if "data" in event else session_of(event)
        return bool(found == self.session)


@asynccontextmanager
async def straight1(driven: Attached1, session: str) -> AsyncIterator[Straight]:
    """Reach an OpenCode 1 past its guard."""
    async with (
        httpx.AsyncClient(base_url=driven.served.url, timeout=30, trust_env=False) as client,
        tapped(client) as events,
    ):
        body: dict[str, object] = {"parts": [{"type": "text", "text": PROMPT}]}
        path = f"/session/{session}/prompt_async"
        yield Straight(client, session, events, path, body, "message.part.delta", "session.idle")


@asynccontextmanager
async def straight2(driven: Driven2, session: str) -> AsyncIterator[Straight]:
    """Reach an OpenCode 2 past its guard."""
    with driven.service.client() as known:
        auth, url = known.auth, str(known.base_url)
    async with (
        httpx.AsyncClient(base_url=url, auth=auth, timeout=30, trust_env=False) as client,
        tapped2(client) as events,
    ):
        body: dict[str, object] = {"text": PROMPT}
        path = f"/api/session/{session}/prompt"
        yield Straight(client, session, events, path, body, "session.text.delta", "session.execution.succeeded")


async def added(driven: Driven, runs: int) -> list[Figure]:
    """Measure the same prompt through `send` and posted straight, by turns, in one session."""
    through: list[tuple[float, float]] = []
    straight: list[tuple[float, float]] = []
    session = driven.create()
    reach = straight1(driven, session) if isinstance(driven, Attached1) else straight2(driven, session)  # type: ignore[arg-type] # the other one
    async with relay_client(driven.registry) as relay, reach as past:
        await eventually_async(lambda: is_idle(relay), "the instance")
        for run in range(-3, runs):  # the first turns warm it up
            pair = await past.post(), await post_through(relay, session)
            if run >= 0:
                straight.append(pair[0])
                through.append(pair[1])
    figures = []
    for index, moment in enumerate(("the first text", "the end")):
        alone = statistics.median(times[index] for times in straight)
        more = statistics.median(times[index] for times in through) - alone
        name = f"OpenCode {driven.generation}"
        figures.append(Figure(f"{name}, posted straight: to {moment}, median", alone * 1000, "ms"))
        figures.append(Figure(f"{name}, `send` adds to {moment}, median", more * 1000, "ms", 10))
    return figures


async def is_idle(relay: RelayClient) -> bool:
    """Tell whether the instance is listed as idle."""
    return [row["state"] for row in (await relay.call("instances")).structured["instances"]] == ["idle"]


async def post_through(relay: RelayClient, session: str) -> tuple[float, float]:
    """Prompt through the relay; return the seconds to the first progress and to the answer."""
    started = time.monotonic()
    answer = await relay.call("send", instance=NAME, message=PROMPT, session=session)
    end = time.monotonic()
    assert not answer.is_error, answer.text
    return answer.progress[0].at - started, end - started


async def measure(runs: int) -> list[Figure]:
    """Measure both generations, one after the other."""
    figures = []
    for kind, binary in ((Attached1, find_opencode()), (Driven2, find_opencode2())):
        with tempfile.TemporaryDirectory() as scratch, ScriptedModel() as model:
            home = OpenCodeHome(Path(scratch, "home"), model.base_url, binary=binary)
            with kind(home, Path(scratch, "project")) as driven:
                figures += await added(driven, runs)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=30, help="turns each way (%(default)s)")
    options = parser.parse_args()
    show("A message", asyncio.run(measure(options.runs)), as_json=options.json)


if __name__ == "__main__":
    main()
