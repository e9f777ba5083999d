"""Sessions of a real OpenCode of either generation: compacted, forked, taken back, renamed, put away, stopped."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from support.chat.mcp_client import relay_client
from support.opencodes.attached import Attached1
from support.opencodes.driven2 import Driven2
from support.opencodes.opencode import OpenCodeHome
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ScriptedModel


@pytest.fixture
def repository(generation: int, home: OpenCodeHome, model: ScriptedModel, tmp_path: Path) -> Iterator[Driven]:
    """An OpenCode at work in a git repository, where it keeps what files were like."""
    directory = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", directory], check=True)
    (directory / "tea.txt").write_text("green\n")
    author = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    subprocess.run(["git", "-C", directory, "add", "."], check=True)
    subprocess.run(["git", "-C", directory, *author, "commit", "-qm", "tea"], check=True)
    own = OpenCodeHome(tmp_path / "home", model.base_url, binary=home.binary, asks=False)
    with (Attached1 if generation == 1 else Driven2)(own, directory) as driven:
        yield driven


async def send(client: RelayClient, message: str, **more: object) -> Answer:
    answer = await client.call("send", on_progress=None, instance="laptop", message=message, **more)
    assert not answer.is_error, answer.text
    return answer


async def control(client: RelayClient, action: str, **more: object) -> Answer:
    answer = await client.call("control", on_progress=None, instance="laptop", action=action, **more)
    assert not answer.is_error, answer.text
    return answer


async def planned(client: RelayClient, action: str, **more: object) -> Answer:
    """Have it shown and then done."""
    shown = await control(client, action, **more)
    assert shown.structured["rows"][0]["result"] == "planned", shown.text
    return await control(client, action, plan=shown.structured["plan"], **more)


@pytest.mark.timeout(400)
async def test_a_session_is_controlled_from_afar(repository: Driven) -> None:
    tea = repository.directory / "tea.txt"
    async with relay_client(repository.registry) as client:
        first = (await send(client, "hello")).structured["session"]
        await send(client, f"[WRITE:{tea}=black]")
        assert tea.read_text() == "black"

        done = await planned(client, "undo")
        assert done.structured["rows"][0]["result"] == "done", done.text
        assert tea.read_text() == "green\n"
        done = await planned(client, "redo")
        assert done.structured["rows"][0]["result"] == "done", done.text
        assert tea.read_text() == "black"
        await planned(client, "undo")
        await send(client, "and now")
        assert repository.prompts(first) == ["hello", "and now"]

        renamed = await control(client, "rename", value="about tea", session=first)
        assert renamed.structured["session"] == first
        assert "about tea" in (await client.call("read", instance="laptop", session=first)).text

        forked = await control(client, "fork", session=first)
        copy = forked.structured["session"]
        assert copy != first
        assert repository.prompts(copy) == ["hello", "and now"]
        await send(client, "in the copy", session=copy)
        assert repository.prompts(first) == ["hello", "and now"]

        compacted = await control(client, "compact", session=copy)
        assert compacted.structured["rows"][0]["result"] == "done", compacted.text
        eventually(lambda: not repository.running(), "the summary is written", within=60)
        assert "a summary of what was before" in (await client.call("read", instance="laptop", session=copy)).text

        if repository.generation == 1:
            archived = await planned(client, "archive", session=copy)
            assert archived.structured["rows"][0]["result"] == "done"
            assert copy != (await send(client, "elsewhere")).structured["session"]
        else:
            refused = await client.call("control", instance="laptop", action="archive", session=copy)
            assert refused.is_error
            assert "cannot put sessions away" in refused.text


@pytest.mark.timeout(400)
async def test_a_large_change_is_taken_back_and_the_instance_stays(repository: Driven) -> None:
    numbers = repository.directory / "numbers.txt"
    async with relay_client(repository.registry) as client:
        session = (await send(client, f"[BASH:seq 1 200000 > {numbers}]")).structured["session"]
        done = await planned(client, "undo", session=session)
        assert done.structured["rows"][0]["result"] == "done", done.text
        assert not numbers.exists()
    # Another server, which knows nothing yet, finds it.
    async with relay_client(repository.registry) as client:
        done = await planned(client, "redo", session=session)
        assert done.structured["rows"][0]["result"] == "done", done.text
        assert numbers.stat().st_size > 1 << 20


@pytest.mark.timeout(400)
async def test_what_runs_is_stopped_several_with_a_plan(repository: Driven, model: ScriptedModel) -> None:
    sessions = [repository.create(), repository.create()]
    async with relay_client(repository.registry) as client:
        for number, session in enumerate(sessions):
            repository.post(session, f"GATE:stop{number}", **_named(repository))
        eventually(lambda: set(repository.running()) == set(sessions), "both run", within=60)
        refused = await client.call("control", instance="laptop", action="fork", session=sessions[0])
        assert refused.is_error
        assert "runs; wait for its end" in refused.text
        stopped = await planned(client, "stop")
        assert {row["session"]: row["result"] for row in stopped.structured["rows"]} == dict.fromkeys(
            sessions, "done"
        )
        assert repository.running() == []
        assert (await control(client, "stop")).structured["rows"][0]["result"] == "nothing"
    for number in range(2):
        model.release(f"stop{number}")


def _named(driven: Driven) -> dict[str, object]:
    """Return what a first message of OpenCode 1 must name."""
    return {"model": {"providerID": "fake", "modelID": "fake"}} if driven.generation == 1 else {}
