"""The guard stays while the agent moves: another port, another password, gone and back."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from client.guard.fake_agent import FakeAgent, fake_agent, session_in
from client.guard.guarded import Known, guarded, opened
from opencode_connected.errors import LauncherError
from opencode_connected.guard.gate import DOCUMENT, HEALTH
from opencode_connected.guard.server import Guard
from opencode_connected.guard.upstream import Target
from support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = Target("http://127.0.0.1:9", "Basic old", 2, "2.0.14")
PATH = "/api/session/ses_a"


async def wants_new(request: web.Request) -> web.Response:
    if request.headers.get("authorization") != "Basic new":
        return web.json_response({"message": "no"}, status=401)
    if request.path == "/api/info":
        return web.json_response({"version": "2.0.15"})
    return session_in("/opened") if request.method == "GET" else web.json_response({"interrupted": True})


async def drops(request: web.Request) -> web.Response:
    """End the connection without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def moves(old: Target, fake: FakeAgent) -> Known:
    return Known([old, fake.target(authorization="Basic new")])


async def test_a_call_finds_the_agent_where_it_is_now() -> None:
    async with fake_agent(wants_new) as fake:
        nobody = Target(f"http://127.0.0.1:{free_port()}", "Basic old", 2, "2.0.14")
        for old in (nobody, fake.target(authorization="Basic old")):
            known = moves(old, fake)
            async with guarded(known, opened("/opened")) as guard:
                assert (await guard.client.get(PATH)).status_code == 200
                assert (await guard.client.post(f"{PATH}/interrupt", json={})).status_code == 200
                assert known.looks == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_prompt_goes_out_again_only_if_it_cannot_have_arrived(method: str) -> None:
    async with fake_agent(drops) as broken, fake_agent(wants_new) as fake:
        known = Known([fake.target(authorization="Basic new")])
        async with guarded(known, opened("/opened")) as guard:
            assert (await guard.client.get(PATH)).status_code == 200
            known.targets = [broken.target(), fake.target(authorization="Basic new")]
            if method == "GET":
                assert (await guard.client.get(f"{PATH}/message")).status_code == 200
                return
            sent = len(broken.requests)
            answer = await guard.client.post(f"{PATH}/prompt", json={"text": "hi"})
            assert (answer.status_code, answer.json()["name"]) == (502, "AgentUnavailable")
            assert len(broken.requests) == sent + 1
            assert all(request[0] == "GET" for request in fake.requests)


async def test_a_refused_prompt_goes_out_again() -> None:
    async with fake_agent(wants_new) as fake:
        known = Known([fake.target(authorization="Basic new")])
        async with guarded(known, opened("/opened")) as guard:
            assert (await guard.client.get(PATH)).status_code == 200
            known.targets = [fake.target(authorization="Basic old"), fake.target(authorization="Basic new")]
            assert (await guard.client.post(f"{PATH}/prompt", json={"text": "hi"})).status_code == 200
            bodies = [body for method, _, _, body in fake.requests if method == "POST"]
            assert bodies == [b'{"text": "hi"}'] * 2


async def test_another_password_everywhere_is_said_and_not_passed_on() -> None:
    async with fake_agent(wants_new) as fake:
        known = Known([fake.target(authorization="Basic old"), fake.target(authorization="Basic older")])
        async with guarded(known, opened("/opened")) as guard:
            answer = await guard.client.get(PATH)
            assert (answer.status_code, answer.json()["name"]) == (502, "AgentUnavailable")
            assert "www-authenticate" not in answer.headers


async def test_health_is_true_while_the_agent_is_gone_and_when_it_is_back() -> None:
    port = free_port()
    known = Known([Target(f"http://127.0.0.1:{port}", "Basic new", 2, "2.0.15")])
    async with guarded(known, opened("/opened")) as guard:
        for _ in range(2):
            answer = await guard.client.get(HEALTH)
            assert (answer.status_code, answer.json()) == (503, {"healthy": False})
            refused = await guard.client.get(PATH)
            assert (refused.status_code, refused.json()["name"]) == (503, "AgentUnavailable")
            async with fake_agent(wants_new, port):
                answer = await guard.client.get(HEALTH)
                assert (answer.status_code, answer.json()) == (200, {"healthy": True, "version": "2.0.15"})


async def test_an_agent_that_does_not_run_is_said_so() -> None:
    async with guarded(Known([None]), opened("/opened")) as guard:
        for path in (DOCUMENT, PATH, "/api/event"):
            answer = await guard.client.get(path)
            assert (answer.status_code, answer.json()["name"]) == (503, "AgentUnavailable")
        assert (await guard.client.get(HEALTH)).json() == {"healthy": False}


async def test_a_socket_that_was_left_is_taken_over_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first, second = (Guard(Known([None]), opened, log=print) for _ in range(2))
    await first.listen_on_socket(path)
    with pytest.raises(LauncherError, match="cannot listen"):
        await second.listen_on_socket(path)
    await first.close()
    left = path.with_name("left")
    path.touch()
    with pytest.raises(LauncherError, match="cannot listen"):
        await second.listen_on_socket(path)
    assert path.is_file()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(left))
    await second.listen_on_socket(left)
    assert left.is_socket()
    await second.close()
    assert not left.exists()
