"""Fixtures of the guard's tests: both generations of real OpenCode."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client.guard.guarded import PASSWORD, Agent, Guarded, PasswordHome, guarded, opened
from support.opencode import ServedOpenCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.scripted_model import ScriptedModel


@pytest.fixture(scope="session")
def agent1(opencode: ServedOpenCode) -> Agent:
    return Agent(1, opencode, opencode.cwd, None)


@pytest.fixture(scope="session")
def agent2(tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel) -> Iterator[Agent]:
    home = PasswordHome(tmp_path_factory.mktemp("home2"), model.base_url, binary=Path(os.environ["OPENCODE2_BIN"]))
    project = tmp_path_factory.mktemp("project2")
    with ServedOpenCode(home, project) as served:
        yield Agent(2, served, project, PASSWORD)


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
