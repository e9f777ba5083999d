"""Only directories that were opened are seen: in queries, bodies, by a session's own, in lists and events."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from aiohttp import web

from client.guard.fake_agent import fake_agent, session_in
from client.guard.guarded import Agent, Guarded, guarded, opened, refusal
from opencode_connected.guard.stream import MAX_BEHIND
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def hidden(agent: Agent) -> Path:
    """A directory beside the opened one, whose name begins alike."""
    directory = agent.directory.with_name(agent.directory.name + "-hidden")
    directory.mkdir(exist_ok=True)
    return directory


def at(agent: Agent, directory: object) -> dict[str, str]:
    return {"location[directory]" if agent.generation == 2 else "directory": str(directory)}


async def test_a_session_of_another_directory_can_neither_be_read_nor_driven(
    agent: Agent, guard: Guarded, hidden: Path
) -> None:
    session = agent.session(hidden)
    path = agent.of(session)
    prompt = (
        ("/prompt", {"text": "hi"})
        if agent.generation == 2
        else ("/prompt_async", {"parts": [{"type": "text", "text": "hi"}]})
    )
    calls: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("GET", "/message", None),
        ("GET", "/message/msg_a", None),
        ("PATCH", "", {"title": "x"}),
        ("POST", prompt[0], prompt[1]),
        ("POST", "/interrupt" if agent.generation == 2 else "/abort", {}),
        ("POST", "/fork", {}),
        ("POST", "/revert/stage" if agent.generation == 2 else "/revert", {"messageID": "msg_a"}),
        ("DELETE", "/revert", None) if agent.generation == 2 else ("POST", "/unrevert", {}),
        ("POST", "/compact", {})
        if agent.generation == 2
        else ("POST", "/summarize", {"providerID": "a", "modelID": "b"}),
    ]
    for method, below, body in calls:
        assert "not opened" in refusal(await guard.client.request(method, path + below, json=body))
    if agent.generation == 1:
        answer = await guard.client.post("/tui/select-session", json={"sessionID": session})
        assert "not opened" in refusal(answer)


async def test_lists_show_sessions_of_opened_directories_only(agent: Agent, guard: Guarded, hidden: Path) -> None:
    ours, theirs = agent.session(agent.directory), agent.session(hidden)
    path = "/api/session" if agent.generation == 2 else "/session"
    told = (await guard.client.get(path, params={"limit": "100"})).json()
    listed = {entry["id"] for entry in (told["data"] if agent.generation == 2 else told)}
    assert ours in listed
    assert theirs not in listed
    asked = await guard.client.get(path, params={"directory": str(hidden)})
    assert "not opened" in refusal(asked)
    asked = await guard.client.get(path, params={"directory": str(agent.directory)})
    assert ours in asked.text


async def test_a_location_is_taken_only_if_it_is_opened(agent: Agent, guard: Guarded, hidden: Path) -> None:
    path = "/api/agent" if agent.generation == 2 else "/permission"
    below = agent.directory / "below"
    for wrong in (hidden, below, agent.directory.parent, "/", "relative", "", f"{agent.directory}/../{hidden.name}"):
        answer = await guard.client.get(path, params=at(agent, wrong))
        assert "not opened" in refusal(answer), wrong
        header = await guard.client.get(path, headers={"x-opencode-directory": quote(str(wrong))})
        assert refusal(header), wrong
    for right in (agent.directory, f"{agent.directory}/"):
        assert (await guard.client.get(path, params=at(agent, right))).status_code == 200
        assert (await guard.client.get(path, headers={"x-opencode-directory": str(right)})).status_code == 200
    header = await guard.client.get(
        path, params=at(agent, agent.directory), headers={"x-opencode-directory": str(hidden)}
    )
    assert "another directory" in refusal(header)


async def test_a_session_is_made_in_an_opened_directory_only(agent: Agent, guard: Guarded, hidden: Path) -> None:
    if agent.generation == 2:
        wrong = await guard.client.post("/api/session", json={"location": {"directory": str(hidden)}})
        right = await guard.client.post("/api/session", json={"location": {"directory": str(agent.directory)}})
        made = right.json()["data"]["location"]["directory"]
    else:
        wrong = await guard.client.post("/session", params={"directory": str(hidden)}, json={})
        right = await guard.client.post("/session", json={})
        made = right.json()["directory"]
    assert "not opened" in refusal(wrong)
    assert made == str(agent.directory)


async def test_opencode_1_does_not_get_to_decode_a_directory_once_more(agent1: Agent) -> None:
    hidden = agent1.directory / "a b"
    written = agent1.directory / "a%20b"
    hidden.mkdir(exist_ok=True)
    written.mkdir(exist_ok=True)
    async with guarded(agent1.target, opened(written)) as guard:
        answer = await guard.client.get("/session/status", params={"directory": str(written)})
        assert "rename the directory" in refusal(answer)


async def test_a_directory_is_seen_from_when_it_is_opened_until_it_is_closed(agent: Agent, hidden: Path) -> None:
    session = agent.session(hidden)
    async with guarded(agent.target, opened(agent.directory)) as guard:
        assert (await guard.client.get(agent.of(session))).status_code == 403
        guard.policy[0] = opened(agent.directory, hidden)
        assert (await guard.client.get(agent.of(session))).status_code == 200
        guard.policy[0] = opened(agent.directory)
        assert (await guard.client.get(agent.of(session))).status_code == 403


async def test_the_own_directory_of_opencode_1_is_not_told_if_it_is_not_opened(agent1: Agent, tmp_path: Path) -> None:
    async with guarded(agent1.target, opened(tmp_path)) as guard:
        for path in ("/path", "/session/status", "/event", "/permission", "/vcs"):
            assert "not opened" in refusal(await guard.client.get(path))
        assert "not opened" in refusal(await guard.client.post("/session", json={}))


async def test_a_session_that_is_not_is_said_to_be_none(agent: Agent, guard: Guarded) -> None:
    assert (await guard.client.get(agent.of("ses_0123456789abcdef"))).status_code == 404


@asynccontextmanager
async def events_of(guard: Guarded, path: str, params: dict[str, str]) -> AsyncIterator[list[dict[str, Any]]]:
    """Read events in the background into the list that it gives."""
    seen: list[dict[str, Any]] = []

    async def read() -> None:
        nonlocal seen
        async with guard.client.stream("GET", path, params=params) as stream:
            assert stream.status_code == 200
            async for line in stream.aiter_lines():
                seen += [json.loads(line[5:])] if line.startswith("data:") else []

    reading = asyncio.create_task(read())
    try:
        await eventually_async(lambda: seen or reading.done(), "the first event", within=60)
        yield seen
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def prompt(agent: Agent, session: str) -> None:
    with agent.straight() as client:
        if agent.generation == 2:
            client.post(f"{agent.of(session)}/prompt", json={"text": "hello"}).raise_for_status()
        else:
            body = {"parts": [{"type": "text", "text": "hello"}]}
            client.post(f"{agent.of(session)}/prompt_async", json=body).raise_for_status()


async def test_events_of_other_directories_are_left_out_and_all_of_the_opened_one_come_in_order(
    agent2: Agent, tmp_path: Path
) -> None:
    ours, theirs = agent2.session(agent2.directory), agent2.session(tmp_path)
    async with (
        guarded(agent2.target, opened(agent2.directory)) as guard,
        guarded(agent2.target, opened(agent2.directory, tmp_path)) as all_seeing,
        events_of(guard, "/api/event", {}) as seen,
        events_of(all_seeing, "/api/event", {}) as everything,
    ):
        assert seen[0]["type"] == "server.connected"
        prompt(agent2, theirs)
        prompt(agent2, ours)

        def ended(events: list[dict[str, Any]], session: str) -> bool:
            ends = ("session.execution.succeeded", "session.execution.failed")
            return any(e["type"] in ends and e["data"]["sessionID"] == session for e in events)

        await eventually_async(lambda: ended(everything, theirs), "the end of the other turn", within=90)
        await eventually_async(lambda: ended(everything, ours), "the end of our turn", within=90)
        await eventually_async(lambda: ended(seen, ours), "the end of our turn through the guard", within=90)
        with agent2.straight() as client:
            client.delete(agent2.of(theirs)).raise_for_status()
            client.delete(agent2.of(ours)).raise_for_status()
        gone = {"type": "session.deleted", "session": ours}
        await eventually_async(
            lambda: any(e["type"] == gone["type"] and e["data"]["sessionID"] == ours for e in seen),
            "the deletion",
            within=60,
        )
        assert theirs not in json.dumps(seen)
        assert str(tmp_path) not in json.dumps(seen)
        of_ours = [e["id"] for e in everything if e.get("data", {}).get("sessionID") == ours]
        passed = [e["id"] for e in seen if e.get("data", {}).get("sessionID") == ours]
        assert passed == of_ours[: len(passed)]
        assert len(passed) > 8


async def test_running_sessions_of_other_directories_are_not_told(agent2: Agent, tmp_path: Path) -> None:
    directories = {"ses_ours": "/opened", "ses_theirs": "/other"}

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/api/session/active":
            return web.json_response({"data": {key: {"type": "running"} for key in [*directories, "../shell"]}})
        return session_in(directories[request.path.rpartition("/")[2]])

    async with fake_agent(answer) as fake, guarded(fake.target(), opened("/opened")) as guard:
        assert (await guard.client.get("/api/session/active")).json() == {"data": {"ses_ours": {"type": "running"}}}


async def test_events_of_opencode_1_come_of_the_asked_directory(agent1: Agent, tmp_path: Path) -> None:
    session = agent1.session(agent1.directory)
    async with guarded(agent1.target, opened(agent1.directory)) as guard:
        assert "not opened" in refusal(await guard.client.get("/event", params={"directory": str(tmp_path)}))
        async with events_of(guard, "/event", {}) as seen:
            prompt(agent1, session)
            await eventually_async(lambda: any(e["type"] == "session.idle" for e in seen), "the end", within=90)
            assert seen[0]["type"] == "server.connected"


async def test_a_change_of_the_policy_is_told_in_the_stream(agent: Agent, guard: Guarded, hidden: Path) -> None:
    path = "/api/event" if agent.generation == 2 else "/event"
    async with events_of(guard, path, {}) as seen:
        guard.policy[0] = opened(agent.directory, hidden)
        await eventually_async(lambda: {"type": "guard.changed"} in seen, "the change", within=30)


FRAME = b'data: {"type":"form.created","location":{"directory":"/opened"},"data":{"id":"' + b"x" * 60_000 + b'"}}\n\n'


async def test_who_does_not_read_is_ended_and_the_agent_is_let_go() -> None:
    let_go = asyncio.Event()
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(FRAME)
                sent += len(FRAME)
        except (ConnectionError, asyncio.CancelledError):
            let_go.set()
            raise

    async with fake_agent(flood) as fake, guarded(fake.target(), opened("/opened")) as guard:
        _, writer = await asyncio.open_unix_connection(guard.socket, limit=1024)
        writer.write(b"GET /api/event HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        async with asyncio.timeout(60):
            await let_go.wait()
        writer.close()
        assert sent < 8 * MAX_BEHIND
        await eventually_async(lambda: any("too slow" in line for line in guard.said), "the log's line")


async def test_an_event_without_an_end_ends_the_stream() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(b"data: " + b"x" * 65_536)

    async with fake_agent(endless) as fake, guarded(fake.target(), opened("/opened")) as guard:
        answer = await guard.raw(b"GET /api/event HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"xxxx" not in answer


ODD_EVENTS: list[Any] = [
    {"type": "x"},
    {"type": "x", "data": {"sessionID": "../../shell"}},
    {"type": "x", "data": {"sessionID": ["ses_a"]}},
    {"type": "x", "location": "/opened"},
    {"type": "x", "location": {"directory": ["/opened"]}},
    {"type": 5, "location": {"directory": "/opened"}},
    {"type": "serverx"},
    [],
    None,
]


async def test_events_of_no_known_place_are_left_out() -> None:
    last = {"type": "server.last"}

    async def odd(request: web.Request) -> web.StreamResponse:
        if request.path != "/api/event":
            return web.json_response({"message": "unknown"}, status=404)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in [*ODD_EVENTS, last]:
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: {\n\nnonsense\n\n: heartbeat\n\n")
        return response

    async with fake_agent(odd) as fake, guarded(fake.target(), opened("/opened")) as guard:
        answer = await guard.client.get("/api/event")
        assert answer.text == f"data: {json.dumps(last)}\n\n: heartbeat\n\n"
