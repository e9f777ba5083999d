"""What the relay relies on in OpenCode 2, asked of the real one, and the support that tests drive it with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from support.chat.plain_http import NO_TLS
from support.opencodes.events2 import new_session2
from support.opencodes.opencode import OpenCodeHome, ServedOpenCode, find_on_machine, version_of
from support.opencodes.opencode2 import OpenCode2Home, ServedOpenCode2, Service2
from support.processes import named, with_home
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from support.opencodes.scripted_model import ScriptedModel


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory to work in."""
    directory = tmp_path / "project"
    directory.mkdir()
    return directory


@pytest.fixture
def fresh_home(tmp_path: Path, model: ScriptedModel, opencode2_bin: Path) -> OpenCode2Home:
    """A home of this test's own, so that it may do to the service what it likes."""
    return OpenCode2Home(tmp_path / "home", model.base_url, binary=opencode2_bin)


async def test_a_plain_turn_streams_and_only_the_execution_is_its_end(service2: Service2, project: Path) -> None:
    async with new_session2(service2.url, service2.auth, project) as session:
        words = await session.turn("plain words")
        order = [
            "session.inbox.enqueued",
            "session.execution.started",
            "session.inbox.delivered",
            "session.step.started",
            "session.text.started",
            "session.text.delta",
            "session.text.ended",
            "session.step.ended",
            "session.execution.succeeded",
        ]
        assert [kind for kind in words if kind in order] == order
        assert session.streamed() == await session.answer() == "echo: plain words"
        kinds = [message["type"] for message in await session.messages()]
        assert kinds == ["user", "assistant", "idle"]


async def test_text_streams_up_to_a_gate_and_goes_on_when_it_is_released(
    service2: Service2, project: Path, model: ScriptedModel
) -> None:
    async with new_session2(service2.url, service2.auth, project) as session:
        await session.prompt("before GATE:support2-gate after")
        await eventually_async(lambda: "before" in session.streamed(), within=30)
        assert session.id in await session.active()
        assert "after" not in session.streamed()
        model.release("support2-gate")
        assert await session.ended() == "succeeded"
        assert session.streamed() == "echo: before  after"


async def test_a_command_waits_for_a_permission_and_goes_on_once_it_is_given(
    service2: Service2, project: Path
) -> None:
    async with new_session2(service2.url, service2.auth, project) as session:
        await session.prompt("[BASH:echo asked-for]")
        await session.seen("permission.asked")
        [ask] = await session.permissions()
        assert (ask["action"], ask["resources"]) == ("shell", ["echo asked-for"])
        assert await session.decide(ask, "once") == 204
        assert await session.ended() == "succeeded"
        assert await session.answer() == "done. result: asked-for\n"
        assert await session.decide(ask, "once") == 404


async def test_a_question_is_a_form_and_waits_for_its_answer(service2: Service2, project: Path) -> None:
    async with new_session2(service2.url, service2.auth, project) as session:
        await session.prompt("[ASK:which colour?]")
        await session.seen("form.created")
        [form] = await session.forms()
        assert form["metadata"]["kind"] == "question"
        assert [option["value"] for option in form["fields"][0]["options"]] == ["red", "blue"]
        assert await session.fill(form, {"q0": "blue"}) == 204
        assert await session.ended() == "succeeded"
        assert '"which colour?"="blue"' in await session.answer()


async def test_a_subagent_has_a_session_of_its_own_and_asks_there(service2: Service2, project: Path) -> None:
    async with new_session2(service2.url, service2.auth, project) as session:
        await session.prompt("[TASK:{BASH:echo below}]")
        child = (await session.seen("permission.asked"))["data"]["sessionID"]
        [created] = [e["data"] for e in session.events if e["type"] == "session.created" and "parentID" in e["data"]]
        assert (created["sessionID"], created["parentID"]) == (child, session.id)
        assert {session.id, child} <= set(await session.active())
        assert await session.permissions() == []
        [ask] = await session.permissions(child)
        await session.decide(ask, "once")
        assert await session.ended() == "succeeded"
        assert "below" in await session.answer()


async def test_edits_go_to_the_file(service2: Service2, project: Path) -> None:
    file = project / "edited.txt"
    async with new_session2(service2.url, service2.auth, project) as session:
        await session.prompt(f"[WRITE:{file}=old text] [EDIT:{file}=old=new] [READ:{file}]")
        for times in (1, 2):
            await session.seen("permission.asked", times=times)
            [ask] = await session.permissions()
            assert ask["action"] == "edit"
            await session.decide(ask, "once")
        assert await session.ended() == "succeeded"
        assert "new text" in await session.answer()
    assert file.read_text() == "new text"


async def test_an_interrupted_turn_ends_as_such(service2: Service2, project: Path) -> None:
    async with new_session2(service2.url, service2.auth, project) as session:
        await session.prompt("words GATE:support2-never")
        await eventually_async(lambda: "words" in session.streamed(), within=30)
        assert await session.interrupt()
        assert await session.ended() == "interrupted"
        assert not await session.interrupt()


async def test_without_asks_a_command_runs_at_once(
    tmp_path: Path, project: Path, model: ScriptedModel, opencode2_bin: Path
) -> None:
    home = OpenCode2Home(tmp_path / "home", model.base_url, binary=opencode2_bin, asks=False)
    with ServedOpenCode2(home, project) as served:
        async with new_session2(served.url, served.auth, project) as session:
            assert "permission.asked" not in await session.turn("[BASH:echo unasked]")
            assert await session.answer() == "done. result: unasked\n"
    assert with_home(home.root) == []


def test_a_served_one_asks_for_the_password_that_it_was_given(fresh_home: OpenCode2Home, project: Path) -> None:
    with ServedOpenCode2(fresh_home, project, password="open sesame") as served:
        assert httpx.get(f"{served.url}/api/info", trust_env=False, verify=NO_TLS).status_code == 401
        with served.client() as client:
            assert client.get("/api/info").json()["pid"] == served.pid


async def test_a_service_that_was_killed_resumes_its_turn_and_leaves_no_process_behind(
    fresh_home: OpenCode2Home, project: Path
) -> None:
    with Service2(fresh_home) as service:
        first, password = service.pid, service.record()["password"]
        async with new_session2(service.url, service.auth, project) as session:
            await session.prompt("[BASH:sleep 1000]")
            await session.seen("permission.asked")
            [ask] = await session.permissions()
            await session.decide(ask, "once")
            await eventually_async(lambda: named("sleep", with_home(fresh_home.root)), "the command", within=30)
            service.kill()
        assert not service.runs()
        assert named("sleep", with_home(fresh_home.root)), "a crash leaves the commands of tools behind"
        service.start()
        assert (service.pid != first, service.record()["password"]) == (True, password)
        with service.client() as client:
            path = f"/api/session/{session.id}/message"
            eventually(lambda: "The server restarted" in client.get(path).text, "the resumed turn", within=60)
    assert with_home(fresh_home.root) == []


def test_a_restarted_service_is_another_process_at_the_same_address(fresh_home: OpenCode2Home) -> None:
    with Service2(fresh_home) as service:
        before = service.record()
        service.restart()
        after = service.record()
        assert before["pid"] != after["pid"]
        assert [before[key] for key in ("url", "password")] == [after[key] for key in ("url", "password")]
        assert after["url"] == f"http://127.0.0.1:{service.port}"
        service.stop()
        assert not service.runs()
        assert not service.registry.exists()


async def test_a_home_of_both_generations_takes_the_same_configuration(
    tmp_path: Path, project: Path, model: ScriptedModel, opencode_bin: Path, opencode2_bin: Path
) -> None:
    home = OpenCodeHome(tmp_path / "home", model.base_url, binary=opencode_bin)
    with ServedOpenCode(home, project) as old, old.client() as client:
        assert client.get("/global/health").json()["version"] == version_of(opencode_bin)
        home.install(opencode2_bin)
        with Service2(home) as new:
            assert new.record()["version"] == version_of(opencode2_bin)
            async with new_session2(new.url, new.auth, project) as session:
                await session.prompt("[BASH:echo asked-here-too]")
                await session.seen("permission.asked")
                await session.interrupt()


def test_a_service_that_nobody_started_has_its_port_all_the_same(fresh_home: OpenCode2Home) -> None:
    with Service2(fresh_home, started=False) as service:
        assert not service.runs()
        settings = json.loads((fresh_home.root / ".config" / "opencode" / "service.json").read_text())
        assert settings["port"] == service.port


def test_what_is_on_the_path_is_taken_only_if_it_is_of_that_generation(
    fresh_home: OpenCode2Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", fresh_home.environment()["PATH"])
    assert find_on_machine("NO_SUCH_VARIABLE", 1) is None
    assert find_on_machine("NO_SUCH_VARIABLE", 2) == fresh_home.root / "bin" / "opencode"
