"""One OpenCode 2 service with much to do: many directories, and many turns at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psutil
import pytest

from support.chat.mcp_client import relay_client
from support.opencodes.driven import NAME
from support.opencodes.driven2 import Driven2
from support.opencodes.opencode import OpenCodeHome
from support.opencodes.scripted_model import ScriptedModel
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.chat.mcp_client import RelayClient

pytestmark = pytest.mark.timeout(300)

DIRECTORIES = 10
TURNS = 20
"""More are with a scripted agent, in `tests/server/test_crowds.py`: here each takes its share of two processors."""


@pytest.fixture(scope="module")
def crowded(opencode2_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven2]:
    """A service of these tests' own: each directory in which sessions ran is an instance from then on."""
    root = tmp_path_factory.mktemp("crowded")
    with ScriptedModel() as model:
        home = OpenCodeHome(root, model.base_url, binary=opencode2_bin)
        with Driven2(home, root / "desk") as driven:
            yield driven


async def by_directory(client: RelayClient) -> dict[str, str]:
    rows = (await client.call("instances")).structured["instances"]
    return {row["directory"]: row["name"] for row in rows if row["state"] == "idle"}


def open_connections(pid: int, port: int) -> int:
    """Return how many connections the process has to the port."""
    found = psutil.Process(pid).net_connections(kind="tcp")
    return sum(bool(c.raddr) and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in found)


async def test_ten_directories_of_one_service_are_ten_instances_over_one_event_stream(crowded: Driven2) -> None:
    directories = [crowded.home.root / "work" / f"project-{number}" for number in range(DIRECTORIES)]
    sessions = {}
    for directory in directories:
        directory.mkdir(parents=True)
        sessions[str(directory)] = crowded.create(directory=directory)
    async with relay_client(crowded.registry) as client:
        await eventually_async(lambda: has(client, sessions), "an instance each", within=90)
        names = await by_directory(client)
        # The stream and a few calls at a time, however many directories there are.
        assert open_connections(client.server_pid, crowded.port) < DIRECTORIES
        calls = [
            client.call("send", instance=names[directory], message=f"in {directory}", session=session)
            for directory, session in sessions.items()
        ]
        answers = await asyncio.gather(*calls)
    assert [answer.structured.get("text") for answer in answers] == [f"echo: in {each}" for each in directories]
    for where, session in sessions.items():
        assert crowded.prompts(session) == [f"in {where}"]


async def has(client: RelayClient, directories: dict[str, str]) -> bool:
    return set(directories) <= set(await by_directory(client))


async def test_many_turns_at_once_have_their_own_answers(crowded: Driven2) -> None:
    sessions = [crowded.create() for _ in range(TURNS)]
    async with relay_client(crowded.registry) as client:
        await eventually_async(lambda: has(client, {str(crowded.directory): ""}), within=90)
        calls = [
            client.call("send", instance=NAME, message=f"number {number}", session=session)
            for number, session in enumerate(sessions)
        ]
        answers = await asyncio.gather(*calls)
    assert [answer.structured.get("text", answer.text) for answer in answers] == [
        f"echo: number {number}" for number in range(TURNS)
    ]
    assert [crowded.prompts(session) for session in sessions] == [[f"number {number}"] for number in range(TURNS)]
