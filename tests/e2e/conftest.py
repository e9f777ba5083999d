"""Real OpenCode, registered, and a client of the real server: what the end-to-end tests of the server stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from support.mcp_client import held_relay_client
from support.registry import register, registration
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from support.mcp_client import RelayClient
    from support.opencode import ServedOpenCode


@pytest.fixture(scope="session")
def shared_registry(tmp_path_factory: pytest.TempPathFactory, opencode: ServedOpenCode) -> Path:
    """A registry directory with the shared OpenCode in it, as `laptop`."""
    directory = tmp_path_factory.mktemp("shared") / "registry"
    register(directory, registration("laptop", opencode.port, cwd=str(opencode.cwd)))
    return directory


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_client(shared_registry: Path) -> AsyncIterator[RelayClient]:
    """A client of one server for many tests: starting one takes longer than most of them."""
    async with held_relay_client(shared_registry) as client:
        yield client


@pytest.fixture
def client(shared_client: RelayClient, opencode: ServedOpenCode) -> Iterator[RelayClient]:
    """The shared client; whatever the shared OpenCode still runs at the test's end is stopped."""
    yield shared_client
    settle(opencode)


@pytest.fixture
def laptop(opencode: ServedOpenCode, registry_dir: Path) -> Iterator[ServedOpenCode]:
    """The shared OpenCode, registered as `laptop` in the test's own registry directory, and stopped like `client`."""
    register(registry_dir, registration("laptop", opencode.port, cwd=str(opencode.cwd)))
    yield opencode
    settle(opencode)


def settle(served: ServedOpenCode) -> None:
    """Stop all that it runs and clear the asks that are left."""
    with served.client() as client:
        for session_id in client.get("/session/status").json():
            client.post(f"/session/{session_id}/abort")
        for ask in client.get("/permission").json():
            client.post(f"/permission/{ask['id']}/reply", json={"reply": "reject"})
        for ask in client.get("/question").json():
            client.post(f"/question/{ask['id']}/reject")
        eventually(lambda: client.get("/session/status").json() == {}, "nothing runs any more", within=30)
