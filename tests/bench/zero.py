"""Loses nothing and doubles nothing: prompts and asks over three machines while every hop breaks at random.

python tests/bench/zero.py [--json] [--seed N] [--events N] [--faults PERCENT]

The machines are scripted and keep a record of what reached them; servers, their journal and all connections are real.
It ends with status 1 and a command that repeats it where what was told and what happened differ.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Figure, show
from support.chaos.run import Plan, Site, run
from support.fleet.registry import register, registration
from support.line.fake_faulty_line import FaultyLine
from support.opencodes.fake_asking_instance import ASKS, asking_instances

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.chaos.run import Report
    from support.opencodes.fake_asking_instance import AskingInstance

MACHINES = ["laptop", "desktop", "workbox"]
SESSIONS = 10
"""Of each machine, all of which work at once."""
ASKING = 0.5
"""Of the prompts, those whose turns ask for something."""
WHENS = ("now",) * 7 + ("asleep",)
"""The moments at which messages are to come."""


async def measure(seed: int, events: int, rate: float) -> tuple[list[Figure], list[str]]:
    """Run so many prompts and asks; return figures and what went wrong. `rate`: the share of broken requests."""
    draw = random.Random(f"{seed} plan")
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        machines = await stack.enter_async_context(asking_instances(MACHINES, sessions=SESSIONS))
        lines = {}
        for name, machine in machines.items():
            lines[name] = FaultyLine(machine.port, random.Random(f"{seed} {name}"), rate)
            await stack.enter_async_context(lines[name])
            # A client each, so that each machine has an allowance of its own in the journal.
            fields = registration(name, lines[name].port, cwd=machine.directory, client=name)
            register(scratch / "registry", fields)
        plan = Plan(seed, prompts(machines, draw, events), kills=8.0, cuts=4.0, restarts=8.0)

        def change(machine: str, ask: str) -> None:
            machines[machine].change(ask)

        report = await run(plan, Site(scratch / "registry", scratch / "state", machines, lines, change, WHENS))
        return figures(report, machines, lines), report.faults


def prompts(
    machines: Mapping[str, AskingInstance], draw: random.Random, events: int
) -> dict[tuple[str, str], list[str]]:
    """Return prompts for all sessions: together with the asks in them, so many events."""
    places = [(name, session) for name, machine in machines.items() for session in machine.sessions]
    made: dict[tuple[str, str], list[str]] = {place: [] for place in places}
    number = 0
    while events > 0:
        number += 1
        asks = draw.random() < ASKING
        made[draw.choice(places)].append(f"number {number}{f' {ASKS}' if asks else ''}")
        events -= 2 if asks else 1
    return made


def figures(report: Report, machines: Mapping[str, AskingInstance], lines: Mapping[str, FaultyLine]) -> list[Figure]:
    """Return what happened, in numbers."""
    befell = sum((line.befell for line in lines.values()), Counter[str]())
    turns = sum(len(machine.arrived) for machine in machines.values())
    ledger = report.ledger
    told = Counter(ledger.sent.values())
    missing = [turns - sum(ledger.ends_told(watcher).values()) for watcher in report.watchers]
    return [
        Figure("prompts and asks", turns + sum(len(machine.asked) for machine in machines.values()), ""),
        Figure("took", report.seconds, "s"),
        Figure("servers killed", report.deaths, ""),
        Figure("lines cut", report.cuts, ""),
        Figure("OpenCodes restarted", report.restarts, ""),
        *(Figure(f"requests {what}", times, "") for what, times in sorted(befell.items())),
        Figure("prompts posted again under their id", sum(m.posts for m in machines.values()) - turns, ""),
        *(Figure(f"prompts told {what}", times, "") for what, times in sorted(told.items())),
        Figure("asks that changed after they were shown", sum(m.changes for m in machines.values()), ""),
        *(Figure(f"calls, {what}", times, "") for what, times in sorted(ledger.outcomes.items())),
        Figure("turns whose end one cursor did not tell, at most", max(missing), ""),
        Figure("turns whose end was told twice, at most", -min(0, *missing), ""),
        Figure("missed, doubled or mistaken", len(report.faults), "", 0),
    ]


def main() -> None:
    """Measure, print, and fail where something was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="by default another each time")
    parser.add_argument("--events", type=int, default=10_000, help="prompts and asks (%(default)s)")
    parser.add_argument("--faults", type=float, default=1.0, help="requests that break, in percent (%(default)s)")
    options = parser.parse_args()
    found, faults = asyncio.run(measure(options.seed, options.events, options.faults / 100))
    show(f"Nothing lost, nothing doubled: seed {options.seed}", found, as_json=options.json)
    if faults:
        print("\n".join(faults), file=sys.stderr)
        again = f"--seed {options.seed} --events {options.events} --faults {options.faults:g}"
        sys.exit(f"{len(faults)} faults. Again: python tests/bench/zero.py {again}")


if __name__ == "__main__":
    main()
