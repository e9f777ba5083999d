"""Nothing lost and nothing doubled: real OpenCode of both generations, while every hop is killed or cut at random.

`tests/bench/zero.py` does the same with 10,000 prompts and asks over scripted machines.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from support.chaos.real_machine import RealMachine
from support.chaos.run import Plan, Site, run
from support.line.fake_faulty_line import FaultyLine
from support.opencodes.attached import Attached1
from support.opencodes.driven import Driven1
from support.opencodes.driven2 import Driven2
from support.opencodes.opencode import OpenCodeHome
from support.opencodes.scripted_model import ScriptedModel

if TYPE_CHECKING:
    from pathlib import Path

    from support.opencodes.driven import Driven

SESSIONS = 2
PROMPTS = 3
"""Of each session; every second one asks."""
RATE = 0.01
"""Of the requests, those that break."""


@pytest.mark.timeout(600)
async def test_every_prompt_arrives_once_and_every_decision_counts_once_whatever_breaks(
    opencode_bin: Path, opencode2_bin: Path, tmp_path: Path
) -> None:
    seed = 1940
    registry = tmp_path / "registry"
    kinds = {"laptop": (Driven1, opencode_bin), "desktop": (Attached1, opencode_bin), "box": (Driven2, opencode2_bin)}
    async with AsyncExitStack() as stack:
        model = stack.enter_context(ScriptedModel())
        machines: dict[str, RealMachine] = {}
        lines: dict[str, FaultyLine] = {}
        for name, (kind, binary) in kinds.items():
            home = OpenCodeHome(tmp_path / f"home-{name}", model.base_url, binary=binary)
            driven: Driven = await asyncio.to_thread(stack.enter_context, kind(home, tmp_path / name))
            lines[name] = FaultyLine(driven.port, random.Random(f"{seed} {name}"), RATE)
            await stack.enter_async_context(lines[name])
            driven.register_at(registry, name, lines[name].port)
            machines[name] = RealMachine(driven, lines[name], SESSIONS)
        prompts = {
            (name, session): [
                machine.prompt(f"{name}-{number}-{which}", asks=which % 2 == 0) for which in range(PROMPTS)
            ]
            for name, machine in machines.items()
            for number, session in enumerate(machine.sessions)
        }
        plan = Plan(seed, prompts, kills=5.0, cuts=4.0, restarts=12.0, most=4)
        report = await run(plan, Site(registry, tmp_path / "state", machines, lines))
        assert not report.faults, report
        assert len(report.ledger.sent) == len(kinds) * SESSIONS * PROMPTS
        allowed = {said.split(">>")[0].split()[-1] for meant in report.ledger.meant.values() for said, _ in meant}
        for machine in machines.values():
            executed = machine.executed()
            assert len(executed) == len(set(executed)), report
            assert set(executed) <= allowed, report
