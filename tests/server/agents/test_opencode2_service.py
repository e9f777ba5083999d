"""One OpenCode 2 is of all directories, and outlives neither a kill nor loses what it ran by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_fleet.agents.opencode2.survey import IN_USE_FOR, MAX_IN_USE, workplaces
from opencode_fleet.errors import Unreachable
from opencode_fleet.events import StatusChanged
from opencode_fleet.model import Session, Workplace
from support.opencodes.connected import WITHIN, guard_document, listening, opencode2_at, post
from support.opencodes.opencode2 import OpenCode2Home, Service2
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_fleet.agents.opencode2 import OpenCode2
    from support.opencodes.scripted_model import ScriptedModel

NOW = 2_000_000_000.0


async def test_a_snapshot_shows_what_was_opened_and_what_is_in_use_below_what_is_allowed(
    service2: Service2, tmp_path: Path
) -> None:
    opened, used, beside = (tmp_path / name for name in ("opened", "allowed/used", "allowed-not"))
    never = tmp_path / "never"
    for directory in (opened, used, beside, never):
        directory.mkdir(parents=True)
    guard = guard_document(
        {str(opened): "laptop-opened", str(never): "laptop-never"}, roots=[str(tmp_path / "allowed")]
    )
    async with opencode2_at(service2, guard) as agent:
        made = {name: (await agent.create(str(name))).id for name in (opened, used, beside)}
        snapshot = await agent.snapshot()
    assert snapshot.workplaces == [
        Workplace(directory=str(opened), name="laptop-opened"),
        Workplace(directory=str(never), name="laptop-never"),
        Workplace(directory=str(used)),
    ]
    assert {session.id for session in snapshot.sessions} == {made[opened], made[used]}


async def test_a_snapshot_has_the_newest_sessions_of_a_directory(service2: Service2, tmp_path: Path) -> None:
    async with opencode2_at(service2, guard_document({str(tmp_path): "laptop-api"})) as agent:
        made = [(await agent.create(str(tmp_path))).id for _ in range(22)]
        snapshot = await agent.snapshot()
        newest = await agent.sessions(str(tmp_path), 2)
    assert [session.id for session in snapshot.sessions] == made[:1:-1]
    assert [session.id for session in newest] == made[:-3:-1]


def test_an_allowed_directory_is_shown_for_as_long_as_it_is_in_use() -> None:
    guard = guard_document(roots=["/home/ann/"])
    sessions = [
        Session(id="ses_new", directory="/home/ann/new", updated=NOW - 10),
        Session(id="ses_old", directory="/home/ann/old", updated=NOW - IN_USE_FOR - 1),
        Session(id="ses_runs", directory="/home/ann/runs", updated=NOW - IN_USE_FOR - 1),
        Session(id="ses_root", directory="/home/ann", updated=NOW - 20),
        Session(id="ses_anna", directory="/home/anna", updated=NOW),
    ]
    shown = workplaces(guard, sessions, {"ses_runs"}, NOW)
    assert [place.directory for place in shown] == ["/home/ann/runs", "/home/ann/new", "/home/ann"]


def test_of_many_allowed_directories_the_latest_used_are_shown() -> None:
    guard = guard_document({"/home/ann/opened": "laptop-opened"}, roots=["/"])
    sessions = [Session(id=f"ses_{n}", directory=f"/srv/{n}", updated=NOW - n) for n in range(MAX_IN_USE + 5)]
    shown = workplaces(guard, sessions, set(), NOW)
    assert shown[0] == Workplace(directory="/home/ann/opened", name="laptop-opened")
    assert [place.directory for place in shown[1:]] == [f"/srv/{n}" for n in range(MAX_IN_USE)]


async def test_a_turn_is_resumed_and_a_prompt_answered_after_the_service_was_killed(
    tmp_path: Path, model: ScriptedModel, opencode2_bin: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    guard = guard_document({str(project): "laptop-project"})
    home = OpenCode2Home(tmp_path / "home", model.base_url, binary=opencode2_bin)
    with Service2(home) as service:
        async with opencode2_at(service, guard) as agent, listening(agent) as heard:
            session = await agent.create(str(project))
            running = await post(agent, session.id, "cut off GATE:opencode2-killed")
            await eventually_async(lambda: model.reached("opencode2-killed"), "the model", within=WITHIN)
            waiting = await post(agent, session.id, "after the kill")
            await heard.first(StatusChanged)
            service.kill()
            await eventually_async(lambda: heard.broken, "the end of the stream", within=WITHIN)
        assert isinstance(heard.broken, Unreachable)
        model.release("opencode2-killed")
        service.start()
        async with opencode2_at(service, guard) as agent:

            async def is_over() -> bool:
                return session.id not in (await agent.runs()).statuses

            await eventually_async(is_over, "the end of what was resumed", within=WITHIN)
            if (await agent.turn(session.id, waiting.id)).is_queued:
                await agent.prompt(waiting)  # it lay there: the same id wakes it
                await eventually_async(lambda: _is_answered(agent, session.id, waiting.id), within=WITHIN)
            first = await agent.turn(session.id, running.id)
            second = await agent.turn(session.id, waiting.id)
            notes = [each for each in await agent.messages(session.id, 20) if each.role == "note"]
    assert [note.text for note in notes] == ["Continuing after restart"]
    assert first.is_stored
    assert second.answers[-1].ended == "well"
    assert not second.is_interrupted


async def _is_answered(agent: OpenCode2, session_id: str, prompt_id: str) -> bool:
    record = await agent.turn(session_id, prompt_id)
    return bool(record.answers) and record.answers[-1].completed is not None
