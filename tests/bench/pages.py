"""Prints what the pages cost: time to the first byte, bytes, how soon a new ask shows, and memory.

python tests/bench/pages.py [--json] [--instances N] [--times N]

Caddy, gateway and server are real; scripted instances and the browser's end share this process, and its processors.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from bench.figures import Figure, show
from bench.gateway import memory_of, percentile
from bench.telling import until_watched
from support.chat.mcp_client import SERVER_COMMAND
from support.fleet.registry import register, registration
from support.gateway.login_pages import Form
from support.gateway.public_gateway import PublicGateway
from support.opencodes.fake_asking_instance import OpenAsk, asking_instances
from support.opencodes.fake_instance import identifier
from support.waiting import PATIENCE, eventually_async

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.opencodes.fake_asking_instance import AskingInstance

MILLISECONDS = 1_000
PASSWORD = "correct horse battery"
WAITING = 10
"""Asks that wait meanwhile."""
MOST_FIRST_BYTE_MS, MOST_SHOWN_MS = 50.0, 200.0
MOST_PAGE_KB = 60.0
FILE = re.compile(r'(?:href|src)="(/[\w.-]+\.(?:css|js|svg|png|webmanifest)[^"]*)"')
ASK = re.compile(r'href="(/asks/a\d+)"')


def ask_of(instance: AskingInstance, command: str) -> OpenAsk:
    """Have an instance ask whether it may run something."""
    session = next(iter(instance.sessions))
    ask = OpenAsk(identifier("per"), session, command, asyncio.get_running_loop().create_future())
    instance.open[ask.id] = ask
    instance.busy.add(session)
    instance.publish("session.status", sessionID=session, status={"type": "busy"})
    instance.publish("permission.asked", **ask.wire())
    return ask


async def first_byte(browser: httpx.AsyncClient, path: str) -> float:
    """Return the milliseconds until the first byte of a page's body."""
    began = time.perf_counter()
    async with browser.stream("GET", path) as response:
        assert response.status_code == 200
        await anext(response.aiter_raw())
        return (time.perf_counter() - began) * MILLISECONDS


async def whole(browser: httpx.AsyncClient, path: str) -> float:
    """Return the kilobytes of a page and of all files that it names, as they are sent without compression."""
    page = await browser.get(path)
    files = dict.fromkeys(FILE.findall(page.text))
    return (len(page.content) + sum([len((await browser.get(each)).content) for each in files])) / 1_000


async def until_shown(browser: httpx.AsyncClient, instances: Sequence[AskingInstance]) -> list[float]:
    """Return the milliseconds from asks, one after the other, to what an open page is told of each."""
    took = []
    async with browser.stream("GET", "/inbox/events", headers={"Accept": "text/event-stream"}) as stream:
        chunks = stream.aiter_text()
        for number, instance in enumerate(instances):
            command = f"new-{number}-"
            began = time.perf_counter()
            ask = ask_of(instance, command)
            async with asyncio.timeout(PATIENCE):
                while command not in await anext(chunks):
                    pass
            took.append((time.perf_counter() - began) * MILLISECONDS)
            instance.decide(ask.id, "once")
    return took


async def measure(directory: Path, count: int, times: int) -> list[Figure]:
    """Measure all of it at so many instances."""
    async with asking_instances([f"laptop-{number}" for number in range(count)], sessions=1) as named:
        instances = list(named.values())
        for name, instance in named.items():
            register(directory / "registry", registration(name, instance.port, cwd=instance.directory))
        env = {"RELAY_REGISTRY_DIR": str(directory / "registry"), "RELAY_STATE_DIR": str(directory / "state")}
        entry = {"command": str(SERVER_COMMAND), "env": env}
        (directory / "gateway").mkdir()
        with PublicGateway(directory / "gateway", directory, entry=entry) as gateway:
            gateway.owner("users", "add", "ann", types=f"{PASSWORD}\n")
            await until_watched(named)
            for number, instance in enumerate(instances[:WAITING]):
                ask_of(instance, f"make target-{number}")
            async with httpx.AsyncClient(
                base_url=gateway.front_url, trust_env=False, verify=gateway.trust(), timeout=60.0
            ) as browser:
                login = await browser.get("/inbox", follow_redirects=True)
                await browser.post("/login", data=Form(login.text).fields | {"name": "ann", "password": PASSWORD})

                async def are_there() -> list[str] | None:
                    found = list(dict.fromkeys(ASK.findall((await browser.get("/inbox")).text)))
                    return found if len(found) == WAITING else None

                asks = await eventually_async(are_there, "the asks")
                _, before = memory_of([gateway.process])
                inbox = [await first_byte(browser, "/inbox") for _ in range(times)]
                ask = [await first_byte(browser, asks[number % WAITING]) for number in range(times)]
                sizes = [await whole(browser, "/inbox"), await whole(browser, asks[0])]
                shown = await until_shown(browser, [instances[WAITING + number % WAITING] for number in range(times)])
                _, after = memory_of([gateway.process])
    return [
        Figure("first byte of the inbox, p50", statistics.median(inbox), "ms", MOST_FIRST_BYTE_MS),
        Figure("first byte of the inbox, p99", percentile(inbox, 99), "ms"),
        Figure("first byte of an ask's page, p50", statistics.median(ask), "ms", MOST_FIRST_BYTE_MS),
        Figure("first byte of an ask's page, p99", percentile(ask, 99), "ms"),
        Figure(f"inbox with {WAITING} asks, and all its files", sizes[0], "kB", MOST_PAGE_KB),
        Figure("an ask's page, and all its files", sizes[1], "kB", MOST_PAGE_KB),
        Figure("a new ask on the open page, p50", statistics.median(shown), "ms", MOST_SHOWN_MS),
        Figure("a new ask on the open page, p99", percentile(shown, 99), "ms"),
        Figure("what this use adds to the gateway, PSS", after - before, "MB"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--times", type=int, default=100)
    parsed = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        figures = asyncio.run(measure(Path(name), parsed.instances, parsed.times))
    show(f"pages at {parsed.instances} instances", figures, as_json=parsed.json)


if __name__ == "__main__":
    main()
