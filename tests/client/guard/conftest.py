"""Fixtures of the guard's tests: both generations of real OpenCode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client.guard.guarded import Agent, Guarded, guarded, opened
from support.opencodes.opencode2 import OpenCode2Home, ServedOpenCode2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from support.opencodes.opencode import ServedOpenCode
    from support.opencodes.scripted_model import ScriptedModel


@pytest.fixture(scope="session")
def agent1(opencode: ServedOpenCode) -> Agent:
    return Agent(1, opencode, opencode.cwd, None)


@pytest.fixture(scope="session")
def agent2(tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel, opencode2_bin: Path) -> Iterator[Agent]:
    # A home of its own: a plain `serve` must not run beside a service.
    home = OpenCode2Home(tmp_path_factory.mktemp("home2"), model.base_url, binary=opencode2_bin)
    with ServedOpenCode2(home, tmp_path_factory.mktemp("project2")) as served:
        yield Agent(2, served, served.cwd, served.password)


@pytest.fixture(params=[1, 2], ids=["opencode1", "opencode2"])
def agent(request: pytest.FixtureRequest) -> Agent:
    """Each generation in turn."""
    found: Agent = request.getfixturevalue(f"agent{request.param}")
    return found


@pytest.fixture
async def guard(agent: Agent) -> AsyncIterator[Guarded]:
    """A guard before the agent, with the agent's own directory opened."""
    async with guarded(agent.target, opened(agent.directory)) as one:
        yield one
