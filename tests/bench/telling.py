"""Prints what telling people costs: from an agent's event to the outlet's request, memory, and a run with kills.

python tests/bench/telling.py [--json] [--instances N] [--events N] [--kills N] [--seed N]

Scripted instances and the outlet share this process; gateway and server are real, and share its processors.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Figure, show
from bench.gateway import memory_of, percentile
from notify.conftest import Told
from notify.killing import killed_at_random
from support.fleet.registry import register, registration
from support.gateway.telling_gateway import telling_gateway
from support.opencodes.fake_asking_instance import OpenAsk, asking_instances
from support.opencodes.fake_instance import identifier
from support.pages.fake_receiver import receiver
from support.waiting import PATIENCE, eventually_async

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from support.opencodes.fake_asking_instance import AskingInstance
    from support.pages.fake_receiver import Receiver

MILLISECONDS = 1_000
ASKS = 1_000
MOST_P50_MS, MOST_P99_MS = 200.0, 1_000.0
MOST_FIRST_MS = 5_000.0
MOST_MEMORY_MB = 20.0


async def chain(directory: Path, count: int, events: int, draws: random.Random) -> list[Figure]:
    """Measure the whole chain at so many instances, and what the gateway takes with and without telling."""
    names = [f"laptop-{number}" for number in range(count)]
    async with asking_instances(names, sessions=1) as instances, receiver(directory) as hook:
        registry = directory / "registry"
        for name, instance in instances.items():
            register(registry, registration(name, instance.port, cwd=instance.directory))
        silent = telling_gateway(directory / "silent", registry, None, hook)
        telling = telling_gateway(directory / "telling", registry, directory / "state", hook, grouping_seconds=0)
        with silent:
            await until_watched(instances)
            _, without = memory_of([silent.process])
        await eventually_async(lambda: not any(each.subscribers for each in instances.values()), "its end")
        with telling:
            await until_watched(instances)
            # Until the server has asked each of them for what is there, it is slower.
            first, *took = [
                await event_to_request(draws.choice(list(instances.values())), hook) * MILLISECONDS
                for _ in range(1 + events)
            ]
            _, with_it = memory_of([telling.process])
    at = f"ask to the webhook's request at {count} instances"
    return [
        Figure(f"{at}, p50", statistics.median(took), "ms", MOST_P50_MS),
        Figure(f"{at}, p99", percentile(took, 99), "ms", MOST_P99_MS),
        Figure(f"{at}, the longest of {events}", max(took), "ms"),
        Figure(f"{at}, the first, right after the start", first, "ms", MOST_FIRST_MS),
        Figure("gateway that tells nobody, PSS", without, "MB"),
        Figure("gateway that told all of these, PSS", with_it, "MB"),
        Figure("telling adds", with_it - without, "MB", MOST_MEMORY_MB),
    ]


async def until_watched(instances: Mapping[str, AskingInstance]) -> None:
    """Wait until the server follows the events of all."""
    await eventually_async(lambda: all(each.subscribers for each in instances.values()), "the fleet")


async def event_to_request(instance: AskingInstance, hook: Receiver) -> float:
    """Have an instance ask; return the seconds until that is told, and have it settled and taken back."""
    hook.got.clear()
    hook.has_got.clear()
    decided = asyncio.get_running_loop().create_future()
    ask = OpenAsk(identifier("per"), next(iter(instance.sessions)), "make", decided)
    instance.open[ask.id] = ask
    began = time.perf_counter()
    instance.publish("permission.asked", **ask.wire())
    async with asyncio.timeout(PATIENCE):
        await hook.has_got.wait()
    took = time.perf_counter() - began
    instance.decide(ask.id, "once")
    await eventually_async(lambda: len(hook.got) == 2, "what takes it back")
    assert [json.loads(each.body)["type"] for each in hook.got] == ["notice", "notice.withdrawn"]
    return took


def killed(directory: Path, kills: int, seed: int) -> list[Figure]:
    """Have a thousand asks told while the sender is killed at random."""
    ann = Told(directory / "killed", directory)
    began = time.monotonic()
    outcome = killed_at_random(ann, ASKS, kills, seed)
    ann.end()
    ann.fleet.journal.close()
    run = f"{ASKS} asks, sender killed {kills} times, seed {seed}"
    return [
        Figure(f"{run}: never told", outcome.missing, "", 0),
        Figure(f"{run}: told by two messages", outcome.doubled, "", 0),
        Figure(f"{run}: told after they were settled", outcome.late, "", 0),
        Figure(f"{run}: sent again, under the same id", outcome.repeats, "", kills),
        Figure(f"{run}: took", time.monotonic() - began, "s"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=14)
    parsed = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        measured = partial(chain, directory, parsed.instances, parsed.events, random.Random(parsed.seed))
        figures = [*asyncio.run(measured()), *killed(directory, parsed.kills, parsed.seed)]
    show("telling people", figures, as_json=parsed.json)


if __name__ == "__main__":
    main()
