"""Which session a message goes to: never one that another OpenCode runs, though all share one database."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from support.mcp_client import relay_client
from support.opencode import ServedOpenCode
from support.registry import register, registration
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.mcp_client import Answer, RelayClient
    from support.opencode import OpenCodeHome
    from support.scripted_model import ScriptedModel


pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def twins(
    opencode_home: OpenCodeHome, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServedOpenCode, ServedOpenCode]]:
    """Two OpenCodes of one user in one directory: each sees the other's sessions."""
    directory = tmp_path_factory.mktemp("twins")
    with ServedOpenCode(opencode_home, directory) as left, ServedOpenCode(opencode_home, directory) as right:
        yield left, right


@pytest.fixture
def left(twins: tuple[ServedOpenCode, ServedOpenCode], registry_dir: Path) -> ServedOpenCode:
    """One of them, registered as `left`; the other is registered as `right`."""
    for name, served in zip(("left", "right"), twins, strict=True):
        register(registry_dir, registration(name, served.port, cwd=str(served.cwd)))
    return twins[0]


async def send(client: RelayClient, instance: str, message: str, **more: object) -> Answer:
    return await client.call("send", on_progress=None, instance=instance, message=message, **more)


def create(served: ServedOpenCode, **fields: object) -> str:
    with served.client() as http:
        answer = http.post("/session", json=fields)
        answer.raise_for_status()
        return str(answer.json()["id"])


def forget_sessions(served: ServedOpenCode) -> None:
    """Delete what earlier tests left: a title that comes late makes its session the newest."""
    with served.client() as http:
        for found in http.get("/session").json():
            # One of a subagent goes with its parent.
            assert http.delete(f"/session/{found['id']}").status_code in {200, 404}


async def test_a_message_goes_on_in_the_session_that_this_process_ran_last(
    left: ServedOpenCode, registry_dir: Path
) -> None:
    async with relay_client(registry_dir) as client:
        first = await send(client, "left", "in a session of its own", session="new")
        create(left, title="nothing ran in it, although it is newer")
        again = await send(client, "left", "and on")
        assert again.structured["session"] == first.structured["session"]


async def test_without_a_known_session_the_newest_of_its_directory_is_taken(
    left: ServedOpenCode, registry_dir: Path
) -> None:
    forget_sessions(left)
    newest = create(left, title="the newest")
    async with relay_client(registry_dir) as client:
        answer = await send(client, "left", "into the newest")
        assert answer.structured["session"] == newest


async def test_archived_and_subagents_sessions_and_those_of_other_directories_are_passed_over(
    left: ServedOpenCode, opencode: ServedOpenCode, registry_dir: Path
) -> None:
    forget_sessions(left)
    wanted = create(left, title="wanted")
    archived = create(left, title="archived")
    with left.client() as http:
        http.patch(f"/session/{archived}", json={"time": {"archived": 1}}).raise_for_status()
    create(left, title="of a subagent", parentID=wanted)
    create(opencode, title="elsewhere")
    async with relay_client(registry_dir) as client:
        assert (await send(client, "left", "where it belongs")).structured["session"] == wanted
        (row, _) = (await client.call("instances")).structured["instances"]
        assert row["session"] == wanted


async def test_a_session_that_another_instance_runs_or_ran_last_is_left_alone(
    left: ServedOpenCode, registry_dir: Path, model: ScriptedModel
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
    left: ServedOpenCode, registry_dir: Path
) -> None:
    async with relay_client(registry_dir) as client:
        shared = (await send(client, "left", "begun on the left", session="new")).structured["session"]
        (registry_dir / "left.json").unlink()
        await eventually_async(lambda: is_offline(client, "left"))
        moved = await send(client, "right", "taken over", session=shared)
        assert moved.structured["result"] == "done"
        register(registry_dir, registration("left", left.port, cwd=str(left.cwd)))
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


async def test_a_session_of_another_directory_is_refused(
    left: ServedOpenCode, opencode: ServedOpenCode, registry_dir: Path
) -> None:
    del left
    elsewhere = create(opencode)
    async with relay_client(registry_dir) as client:
        refused = await send(client, "left", "not here", session=elsewhere)
        assert refused.is_error
        assert "belongs to another directory" in refused.text


@pytest.mark.parametrize(
    ("session", "said"),
    [
        ("ses_0000000000000000000000000", "has no session ses_0000000000000000000000000"),
        ("../../global/dispose", "is no session id"),
        ("ses_x/../../global/dispose", "is no session id"),
        ("ses_" + "x" * 5000, "is no session id"),
        ("New", "is no session id"),
    ],
)
async def test_what_is_no_session_of_the_instance_is_refused(client: RelayClient, session: str, said: str) -> None:
    for tool, more in (("send", {"message": "nowhere"}), ("read", {})):
        refused = await client.call(tool, on_progress=None, instance="laptop", session=session, **more)
        assert refused.is_error
        assert said in refused.text
        assert len(refused.text) < 400


async def test_new_always_means_a_fresh_session(client: RelayClient) -> None:
    first = await send(client, "laptop", "one", session="new")
    second = await send(client, "laptop", "two", session="new")
    assert first.structured["session"] != second.structured["session"]


async def test_a_subagents_session_is_not_driven_beside_its_parent_and_reads_as_busy_while_it_runs(
    client: RelayClient, opencode: ServedOpenCode, model: ScriptedModel
) -> None:
    turn = await send(client, "laptop", "[TASK:{BASH:echo sub-busy}]", session="new")
    (ask,) = turn.structured["asks"]
    with opencode.client() as http:
        (child,) = http.get(f"/session/{ask['session']}/children").json()
    refused = await send(client, "laptop", "never-sent to a subagent", session=child["id"])
    assert refused.is_error
    assert ask["session"] in refused.text
    assert model.turns("never-sent") == []
    read = await client.call("read", instance="laptop", session=child["id"])
    assert read.structured["state"] == "busy"
    assert [found["id"] for found in read.structured["asks"]] == [ask["id"]]


async def test_a_session_that_an_instance_runs_stays_its_own_while_the_line_to_it_is_cut(
    left: ServedOpenCode, twins: tuple[ServedOpenCode, ServedOpenCode], registry_dir: Path, model: ScriptedModel
) -> None:
    async with relay_client(registry_dir, env={"HEALTH_CHECK_TIMEOUT_MS": "500"}) as client:
        turn = asyncio.create_task(send(client, "left", "GATE:stalled-left", session="new"))
        await eventually_async(lambda: model.reached("stalled-left"), within=30)
        session = model.turns("stalled-left")[0].session
        os.kill(left.pid, signal.SIGSTOP)
        try:
            await eventually_async(lambda: state_is(client, "left", "unresponsive"), within=40)
            beside = await send(client, "right", "beside-the-stalled one")
            assert beside.structured["session"] != session
        finally:
            os.kill(left.pid, signal.SIGCONT)
        model.release("stalled-left")
        assert (await turn).structured["session"] == session


async def state_is(client: RelayClient, instance: str, wanted: str) -> bool:
    rows = (await client.call("instances")).structured["instances"]
    return any(row["name"] == instance and row["state"] == wanted for row in rows)
