"""Where the support could lie: the fakes against the real OpenCode, and how a served one starts and ends."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from support.chat.plain_http import NO_TLS
from support.opencodes.events import PLAIN_TURN, TappedSession, new_session
from support.opencodes.fake_fleet import FakeFleet
from support.opencodes.fake_hostile import BEHAVIOURS, HostileInstance
from support.opencodes.opencode import OpenCodeHome, ServedOpenCode
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_fake_instance_agrees_with_the_real_one(opencode: ServedOpenCode, tmp_path: Path) -> None:
    with FakeFleet(tmp_path / "registry") as fleet:
        (port,) = fleet.add(1).values()
        shapes = []
        for url in (opencode.url, f"http://127.0.0.1:{port}"):
            async with new_session(url) as session:
                assert await session.turn("the same words") == PLAIN_TURN
                shapes.append(await shapes_of(session))
    real, fake = shapes
    assert fake == real


async def test_a_hung_member_accepts_and_never_answers(tmp_path: Path) -> None:
    with FakeFleet(tmp_path / "registry") as fleet:
        (port,) = fleet.add(1, hung=True).values()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=NO_TLS) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/global/health", timeout=httpx.Timeout(30, read=0.2))


@pytest.mark.parametrize("behaviour", sorted(BEHAVIOURS))
async def test_a_hostile_instance_is_bad_in_its_own_way(behaviour: str) -> None:
    async with HostileInstance(behaviour) as hostile:
        for path, expected in zip(("/global/health", "/event"), SYMPTOMS[behaviour], strict=True):
            patience = 0.3 if expected == "stalls" else 30
            assert await symptom(hostile.port, path, patience) == expected, path


def test_a_served_opencode_can_ask_for_a_password(opencode_home: OpenCodeHome, tmp_path: Path) -> None:
    with ServedOpenCode(opencode_home, tmp_path / "project", password="secret") as served:
        assert httpx.get(f"{served.url}/global/health", verify=NO_TLS).status_code == 401
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


NOT_READ = frozenset({"agent", "model", "summary"})
"""What real OpenCode adds after a while and no driver reads; the fake leaves some of it out."""


async def shapes_of(session: TappedSession) -> dict[str, set[tuple[str, str]]]:
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
            httpx.AsyncClient(trust_env=False, timeout=120, verify=NO_TLS) as client,
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
