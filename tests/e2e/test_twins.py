"""Two OpenCode 1 of one user in one directory: each sees the other's sessions, and none may write into them."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client
from support.opencodes.driven import Driven1
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.opencode import OpenCodeHome
    from support.opencodes.scripted_model import ScriptedModel

# OpenCode 2 is one process for all directories of a user.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.generations(1)]


@pytest.fixture(scope="module")
def twins(home: OpenCodeHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Driven1, Driven1]]:
    """Two of them, running."""
    directory = tmp_path_factory.mktemp("twins")
    with Driven1(home, directory) as left, Driven1(home, directory) as right:
        yield left, right


@pytest.fixture
def left(twins: tuple[Driven1, Driven1], registry_dir: Path) -> Driven1:
    """One of them, registered as `left`; the other is registered as `right`."""
    for name, driven in zip(("left", "right"), twins, strict=True):
        driven.register_at(registry_dir, name, driven.port)
    return twins[0]


async def send(client: RelayClient, instance: str, message: str, **more: object) -> Answer:
    return await client.call("send", on_progress=None, instance=instance, message=message, **more)


async def test_archived_sessions_and_subagents_are_passed_over(left: Driven1, registry_dir: Path) -> None:
    left.forget_sessions()
    wanted = left.create("wanted")
    archived = left.create("archived")
    with left.served.client() as http:
        http.patch(f"/session/{archived}", json={"time": {"archived": 1}}).raise_for_status()
        http.post("/session", json={"title": "of a subagent", "parentID": wanted}).raise_for_status()
    async with relay_client(registry_dir) as client:
        assert (await send(client, "left", "where it belongs")).structured["session"] == wanted
        (row, _) = (await client.call("instances")).structured["instances"]
        assert row["session"] == wanted


async def test_a_session_that_another_instance_runs_or_ran_last_is_left_alone(
    left: Driven1, registry_dir: Path, model: ScriptedModel
) -> None:
    del left
    async with relay_client(registry_dir, env={"SEND_TIMEOUT_MS": "60000"}) as client:
        ran = (await send(client, "left", "ran by the left one", session="new")).structured["session"]
        # It is the newest of the directory for both, and known to be the other's.
        mine = (await send(client, "right", "from the right one")).structured["session"]
        assert mine != ran
        refused = await send(client, "right", "to the other's session", session=ran)
        assert refused.is_error
        assert refused.text == f"session {ran} is run by “left”; send to “left”. Nothing was sent"

        turn = asyncio.create_task(send(client, "left", "GATE:sessions-left", session=ran))
        await eventually_async(lambda: model.reached("sessions-left"), within=30)
        assert (await send(client, "right", "to the busy one", session=ran)).is_error
        assert (await send(client, "right", "again from the right one")).structured["session"] == mine
        model.release("sessions-left")
        await turn
        assert not model.turns("to the busy one")
        assert not model.turns("to the other's session")


async def test_a_session_that_the_other_has_left_may_be_named_by_whoever_runs_it_then(
    left: Driven1, registry_dir: Path
) -> None:
    async with relay_client(registry_dir) as client:
        shared = (await send(client, "left", "begun on the left", session="new")).structured["session"]
        (registry_dir / "left.json").unlink()
        await eventually_async(lambda: is_offline(client, "left"))
        moved = await send(client, "right", "taken over", session=shared)
        assert moved.structured["result"] == "done"
        left.register_at(registry_dir, "left", left.port)
        await eventually_async(lambda: is_live(client, "left"))
        refused = await send(client, "left", "it is the right one's now", session=shared)
        assert "is run by “right”" in refused.text


async def row_of(client: RelayClient, name: str) -> dict[str, object]:
    rows = (await client.call("instances")).structured["instances"]
    return next(row for row in rows if row["name"] == name)


async def is_offline(client: RelayClient, name: str) -> bool:
    return (await row_of(client, name))["state"] == "offline"


async def is_live(client: RelayClient, name: str) -> bool:
    return (await row_of(client, name))["state"] == "idle"


async def test_a_session_of_another_directory_is_refused(left: Driven1, tmp_path: Path, registry_dir: Path) -> None:
    elsewhere = left.create(directory=tmp_path)
    async with relay_client(registry_dir) as client:
        refused = await send(client, "left", "not here", session=elsewhere)
        assert refused.is_error
        assert "belongs to another directory" in refused.text


async def test_a_session_that_an_instance_runs_stays_its_own_while_the_line_to_it_is_cut(
    left: Driven1, registry_dir: Path, model: ScriptedModel
) -> None:
    async with relay_client(registry_dir, env={"HEALTH_CHECK_TIMEOUT_MS": "2000"}) as client:
        turn = asyncio.create_task(send(client, "left", "GATE:stalled-left", session="new"))
        await eventually_async(lambda: model.reached("stalled-left"), within=30)
        session = model.turns("stalled-left")[0].session
        os.kill(left.served.pid, signal.SIGSTOP)
        try:
            await eventually_async(lambda: state_is(client, "left", "unresponsive"), within=90)
            beside = await send(client, "right", "beside-the-stalled one")
            assert beside.structured["session"] != session
        finally:
            os.kill(left.served.pid, signal.SIGCONT)
        model.release("stalled-left")
        assert (await turn).structured["session"] == session


async def state_is(client: RelayClient, instance: str, wanted: str) -> bool:
    rows = (await client.call("instances")).structured["instances"]
    return any(row["name"] == instance and row["state"] == wanted for row in rows)
