"""Where the support could lie: real OpenCode behind the scripted model, and the fakes against the real one.

The event sequences are the canary for new versions of OpenCode: the server's turn algorithm stands on them.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from support.events import outline, session_of, tapped
from support.fake_fleet import FakeFleet
from support.fake_hostile import BEHAVIOURS, HostileInstance
from support.opencode import OpenCodeHome, ServedOpenCode
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.events import Event
    from support.scripted_model import ScriptedModel

PLAIN = [
    "user",
    "text full",
    "busy",
    "assistant",
    "step-start",
    "text",
    "delta",
    "text full",
    "step-finish",
    "assistant stop",
    "busy",
    "idle",
    "session.idle",
]
"""A plain turn, from the prompt to the end."""


class Session:
    """A fresh session of a served OpenCode, with the events of its whole process tapped."""

    def __init__(self, client: httpx.AsyncClient, session_id: str, events: list[Event]) -> None:
        self.client, self.id, self.events = client, session_id, events

    async def prompt(self, text: str) -> None:
        body = {"parts": [{"type": "text", "text": text}]}
        (await self.client.post(f"/session/{self.id}/prompt_async", json=body)).raise_for_status()

    async def seen(self, kind: str, *, times: int = 1) -> Event:
        """Wait until an event of that type has come so many times, in whatever session, and return the last."""

        def found() -> list[Event]:
            return [event for event in self.events if event["type"] == kind]

        await eventually_async(lambda: len(found()) >= times, f"{times} x {kind}", within=30)
        return found()[-1]

    async def turn(self, text: str) -> list[str]:
        """Prompt, wait for the end, and return the outline of this session."""
        await self.prompt(text)
        await eventually_async(lambda: "session.idle" in self.outline(), "the end of the turn", within=30)
        return self.outline()

    def outline(self) -> list[str]:
        return outline(self.events, self.id)


@asynccontextmanager
async def a_session(url: str) -> AsyncIterator[Session]:
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client, tapped(client) as events:
        session_id = (await client.post("/session", json={})).json()["id"]
        yield Session(client, session_id, events)


async def test_a_plain_turn_has_the_order_of_events_that_the_notes_list(opencode: ServedOpenCode) -> None:
    async with a_session(opencode.url) as session:
        assert await session.turn("plain words") == PLAIN


async def test_reasoning_streams_before_the_text_and_its_deltas_are_told_apart_by_their_part(
    opencode: ServedOpenCode,
) -> None:
    async with a_session(opencode.url) as session:
        words = await session.turn("THINK first")
        assert words.index("reasoning") < words.index("reasoning full") < words.index("text")
        deltas = [e["properties"] for e in session.events if e["type"] == "message.part.delta"]
        assert {delta["field"] for delta in deltas} == {"text"}
        assert len({delta["partID"] for delta in deltas}) == 2


async def test_text_streams_up_to_a_gate_and_goes_on_when_it_is_released(
    opencode: ServedOpenCode, model: ScriptedModel
) -> None:
    async with a_session(opencode.url) as session:
        await session.prompt("before GATE:support-gate after")
        await eventually_async(lambda: "before" in streamed(session.events))
        assert model.reached("support-gate")
        assert "after" not in streamed(session.events)
        model.release("support-gate")
        await session.seen("session.idle")
        assert streamed(session.events) == "echo: before  after"


async def test_a_command_waits_for_a_permission_and_goes_on_once_it_is_given(opencode: ServedOpenCode) -> None:
    async with a_session(opencode.url) as session:
        await session.prompt("[BASH:echo asked-for]")
        asked = await session.seen("permission.asked")
        assert asked["properties"]["metadata"] == {"command": "echo asked-for"}
        listed = (await session.client.get("/permission")).json()
        assert listed == [asked["properties"]]
        await session.client.post(f"/permission/{listed[0]['id']}/reply", json={"reply": "once"})
        await session.seen("session.idle")
        words = session.outline()
        assert words.index("permission.asked") < words.index("permission.replied") < words.index("bash completed")
        assert streamed(session.events) == "done. result: asked-for\n"


async def test_a_question_waits_for_its_answer(opencode: ServedOpenCode) -> None:
    async with a_session(opencode.url) as session:
        await session.prompt("[ASK:which colour?]")
        asked = await session.seen("question.asked")
        await session.client.post(f"/question/{asked['properties']['id']}/reply", json={"answers": [["blue"]]})
        await session.seen("session.idle")
        assert "question.replied" in session.outline()
        assert '"which colour?"="blue"' in streamed(session.events)


async def test_a_subagent_has_a_session_of_its_own_and_asks_there(opencode: ServedOpenCode) -> None:
    async with a_session(opencode.url) as session:
        await session.prompt("[TASK:{BASH:echo below}]")
        asked = await session.seen("permission.asked")
        child = session_of(asked)
        created = [e["properties"]["info"] for e in session.events if e["type"] == "session.created"]
        assert [info["parentID"] for info in created if info["id"] == child] == [session.id]
        busy = (await session.client.get("/session/status")).json()
        assert busy[session.id] == busy[child] == {"type": "busy"}
        await session.client.post(f"/permission/{asked['properties']['id']}/reply", json={"reply": "once"})
        await session.seen("session.idle", times=2)
        assert "below" in streamed(session.events)


async def test_an_abort_ends_in_an_error_and_a_second_idle(opencode: ServedOpenCode) -> None:
    async with a_session(opencode.url) as session:
        await session.prompt("words GATE:never-released")
        await eventually_async(lambda: "words" in streamed(session.events))
        await session.client.post(f"/session/{session.id}/abort")
        await session.seen("session.idle", times=2)
        assert "session.error" in session.outline()
        assert "assistant MessageAbortedError" in session.outline()


async def test_a_client_error_of_the_model_ends_the_turn_and_a_server_error_is_retried(
    opencode: ServedOpenCode, model: ScriptedModel
) -> None:
    async with a_session(opencode.url) as session:
        assert "session.error" in await session.turn("FAIL401 refused")
    async with a_session(opencode.url) as session:
        words = await session.turn("FAIL503x1 RETRYAFTER overloaded")
        assert words.index("retry") < words.index("assistant stop")
        assert len(model.turns("overloaded")) == 2


async def test_several_calls_run_one_after_another_or_all_at_once(
    opencode: ServedOpenCode, model: ScriptedModel
) -> None:
    async with a_session(opencode.url) as session:
        await session.turn("[TODO:one;two] [READ:missing]")
        assert {r.step for r in model.requests if r.session == session.id} >= {0, 1, 2}
    async with a_session(opencode.url) as session:
        await session.turn("PARALLEL [TODO:three] [TODO:four]")
        assert max(r.step for r in model.requests if r.session == session.id) == 2
        assert len([r for r in model.requests if r.session == session.id and not r.for_title]) == 2


async def test_edits_go_to_the_file(opencode: ServedOpenCode) -> None:
    file = opencode.cwd / "edited.txt"
    async with a_session(opencode.url) as session:
        await session.prompt(f"[WRITE:{file}=old text] [EDIT:{file}=old=new]")
        for times in (1, 2):
            asked = await session.seen("permission.asked", times=times)
            await session.client.post(f"/permission/{asked['properties']['id']}/reply", json={"reply": "once"})
        await session.seen("session.idle")
    assert file.read_text() == "new text"


async def test_the_fake_instance_agrees_with_the_real_one(opencode: ServedOpenCode, tmp_path: Path) -> None:
    with FakeFleet(tmp_path / "registry") as fleet:
        (port,) = fleet.add(1).values()
        shapes = []
        for url in (opencode.url, f"http://127.0.0.1:{port}"):
            async with a_session(url) as session:
                assert await session.turn("the same words") == PLAIN
                shapes.append(await shapes_of(session))
    real, fake = shapes
    assert fake == real


async def test_a_hung_member_accepts_and_never_answers(tmp_path: Path) -> None:
    with FakeFleet(tmp_path / "registry") as fleet:
        (port,) = fleet.add(1, hung=True).values()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/global/health", timeout=0.2)


@pytest.mark.parametrize("behaviour", sorted(BEHAVIOURS))
async def test_a_hostile_instance_is_bad_in_its_own_way(behaviour: str) -> None:
    async with HostileInstance(behaviour) as hostile:
        for path, expected in zip(("/global/health", "/event"), SYMPTOMS[behaviour], strict=True):
            patience = 0.3 if expected == "stalls" else 30
            assert await symptom(hostile.port, path, patience) == expected, path


def test_a_served_opencode_can_ask_for_a_password(opencode_home: OpenCodeHome, tmp_path: Path) -> None:
    with ServedOpenCode(opencode_home, tmp_path / "project", password="secret") as served:
        assert httpx.get(f"{served.url}/global/health").status_code == 401
        with served.client() as client:
            assert client.get("/global/health").json()["healthy"] is True


def test_stopping_a_served_opencode_ends_its_tools_too(opencode_home: OpenCodeHome, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with ServedOpenCode(opencode_home, tmp_path / "project") as served, served.client() as client:
        allowed = {"permission": "bash", "pattern": "*", "action": "allow"}
        session_id = client.post("/session", json={"permission": [allowed]}).json()["id"]
        script = f"[BASH:echo $$ > {pid_file}; sleep 1000]"
        client.post(f"/session/{session_id}/prompt_async", json={"parts": [{"type": "text", "text": script}]})
        pid = int(eventually(lambda: pid_file.exists() and pid_file.read_text().strip(), within=60))
        assert is_alive(pid)
        opencode_pid = served.pid
    eventually(lambda: not is_alive(pid), "the end of the tool")
    assert not is_alive(opencode_pid)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def streamed(events: list[Event]) -> str:
    """Return all text of the deltas, in their order."""
    return "".join(e["properties"]["delta"] for e in events if e["type"] == "message.part.delta")


NOT_READ = frozenset({"agent", "model", "summary"})
"""What real OpenCode adds after a while and no driver reads; the fake leaves some of it out."""


async def shapes_of(session: Session) -> dict[str, set[tuple[str, str]]]:
    """Return the shape of every answer that a driver reads: pairs of a path into it and the type there."""
    paths = ["/global/health", "/path", "/session?limit=1", "/session/status", "/permission", "/question"]
    paths += [f"/session/{session.id}", f"/session/{session.id}/message"]
    answers = {path.replace(session.id, "ID"): await session.client.get(path) for path in paths}
    return {path: set(shape(answer.json())) for path, answer in answers.items()}


def shape(value: Any, path: str = "") -> list[tuple[str, str]]:
    match value:
        case dict():
            return [pair for key in value.keys() - NOT_READ for pair in shape(value[key], f"{path}.{key}")]
        case list():
            return [pair for inner in value for pair in shape(inner, f"{path}[]")] or [(path, "list")]
        case bool() | str() | None:
            return [(path, type(value).__name__)]
        case _:
            return [(path, "number")]


SYMPTOMS = {
    "closes_at_once": ("broken off", "broken off"),
    "deeply_nested": ("RecursionError", "RecursionError"),
    "endless_body": ("too long", "too long"),
    "endless_event": ("healthy", "too long"),
    "endless_headers": ("broken off", "broken off"),
    "escapes": ("healthy", "stalls"),
    "flood": ("healthy", "too long"),
    "garbage": ("ValueError", "ValueError"),
    "gzip_bomb": ("too long", "too long"),
    "html": ("text/html", "text/html"),
    "huge_event": ("healthy", "too long"),
    "redirect": ("302", "302"),
    "slow_headers": ("stalls", "stalls"),
    "stalled_stream": ("healthy", "stalls"),
    "stream_ends": ("healthy", "text/event-stream"),
    "stream_of_html": ("healthy", "text/html"),
    "unauthorized": ("401", "401"),
    "wrong_types": ("no sense", "no sense"),
}
"""What a careful client sees of each behaviour on `/global/health` and on `/event`."""


async def symptom(port: int, path: str, patience: float) -> str:
    """Ask once, for at most `patience` seconds and a megabyte, and say in a word what came."""
    received = b""
    try:
        async with (
            asyncio.timeout(patience),
            httpx.AsyncClient(trust_env=False, timeout=2 * patience) as client,
            client.stream("GET", f"http://127.0.0.1:{port}{path}") as response,
        ):
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > 1_000_000:
                    return "too long"
    except TimeoutError:
        return "stalls"
    except httpx.HTTPError:
        return "broken off"
    if response.status_code != 200:
        return str(response.status_code)
    if (kind := response.headers["content-type"]) != "application/json":
        return str(kind)
    return judge(received)


def judge(body: bytes) -> str:
    try:
        health = json.loads(body)
    except (ValueError, RecursionError) as error:
        return "RecursionError" if isinstance(error, RecursionError) else "ValueError"
    return "healthy" if health["healthy"] is True else "no sense"
