"""Real OpenCode of either generation, registered, and a client of the real server.

What asks for `generation`, as most fixtures here do, runs once with each; `@pytest.mark.generations(1)` says that the
other one cannot do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from support.chat.mcp_client import held_relay_client
from support.opencodes.attached import Attached1
from support.opencodes.driven2 import Driven2
from support.opencodes.opencode import OpenCodeHome
from support.opencodes.scripted_model import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from support.chat.mcp_client import RelayClient
    from support.opencodes.driven import Driven


def pytest_configure(config: pytest.Config) -> None:
    """Declare this directory's mark."""
    config.addinivalue_line("markers", "generations(number): the generations of OpenCode that can do this")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a generation once with each that can do it."""
    if "generation" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("generations")
        numbers = mark.args if mark else (1, 2)
        names = [f"opencode{number}" for number in numbers]
        metafunc.parametrize("generation", numbers, ids=names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def generation(request: pytest.FixtureRequest) -> int:
    """The generation of OpenCode that the test runs with."""
    return int(request.param)


@pytest.fixture(scope="session")
def model(generation: int) -> Iterator[ScriptedModel]:
    """The scripted model of this generation's OpenCode: the other one's requests do not count."""
    del generation
    with ScriptedModel() as scripted:
        yield scripted


@pytest.fixture(scope="session")
def home(
    generation: int,
    model: ScriptedModel,
    opencode_bin: Path,
    opencode2_bin: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> OpenCodeHome:
    """The HOME of a person who has this generation."""
    binary = opencode_bin if generation == 1 else opencode2_bin
    return OpenCodeHome(tmp_path_factory.mktemp("home"), model.base_url, binary=binary)


@pytest.fixture(scope="session")
def shared(generation: int, home: OpenCodeHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    """The OpenCode that tests share: leave its sessions idle and it alive."""
    kind = Attached1 if generation == 1 else Driven2
    with kind(home, tmp_path_factory.mktemp("project")) as driven:
        yield driven


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_client(shared: Driven) -> AsyncIterator[RelayClient]:
    """A client of one server for many tests: starting one takes longer than most of them."""
    async with held_relay_client(shared.registry) as client:
        yield client


@pytest.fixture
def laptop(shared: Driven) -> Iterator[Driven]:
    """The shared OpenCode, which is `laptop`; whatever it still runs at the test's end is stopped."""
    yield shared
    shared.settle()


@pytest.fixture
def client(shared_client: RelayClient, laptop: Driven) -> RelayClient:
    """The shared client, before the shared OpenCode."""
    del laptop
    return shared_client
