"""Whoever reaches the guard's end of the tunnel may try anything."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest
from aiohttp import web

from client.guard.fake_agent import FakeAgent, fake_agent, session_in
from client.guard.guarded import CREDENTIALS, Agent, Guarded, basic, guarded, opened, refusal
from opencode_connected.guard.gate import DOCUMENT, HEALTH
from opencode_connected.guard.server import MAX_CONNECTIONS
from support.chat.plain_http import NO_TLS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def tells_all(request: web.Request) -> web.Response:
    """Be an agent that does whatever it is asked."""
    return session_in("/opened") if request.method == "GET" else web.json_response({"data": "done"})


@pytest.fixture
async def fake() -> AsyncIterator[FakeAgent]:
    async with fake_agent(tells_all) as one:
        yield one


@pytest.fixture
async def before_fake(fake: FakeAgent) -> AsyncIterator[Guarded]:
    async with guarded(fake.target(), opened("/opened")) as one:
        yield one


TRICKS = [
    "/api/session/../shell",
    "/api/session/ses_a/../../shell",
    "/api/session/%2e%2e/shell",
    "/api/session/..%2fshell",
    "/api/session/ses_a%2fshell",
    "/api/session/ses_a/./message",
    "/api//session",
    "//api/session",
    "/api/session/",
    "/api/session/ses_a/message/",
    "/api/session/ses_a;x/message",
    "/api/session/ses_a%00/message",
    "/api/session/ses_a\\..\\shell",
    "/API/session",
    "/api/sess%69on",
    "/api/session/" + "a" * 81,
    "/api/session/ses_ä",
    "http://127.0.0.1/api/session",
    "http://example.com/api/session",
    "*",
    "/api/session#/api/shell",
    "/",
    "",
]


@pytest.mark.parametrize("path", TRICKS)
async def test_a_path_that_is_not_written_as_on_the_list_is_refused(
    fake: FakeAgent, before_fake: Guarded, path: str
) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    answer = await before_fake.raw(request)
    assert answer.split(b"\r\n")[0].split()[1] in (b"403", b"400"), answer
    assert fake.requests == []


SMUGGLED = b"POST /api/shell HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}"
HEAD = b"POST /api/session/ses_a/interrupt HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
SMUGGLING = {
    "both lengths": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 90\r\n\r\n" + SMUGGLED,
    "length list": HEAD + b"Content-Length: 0, 90\r\n\r\n" + SMUGGLED,
    "signed length": HEAD + b"Content-Length: +2\r\n\r\n{}" + SMUGGLED,
    "odd encoding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "encoding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "blank before colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "folded": HEAD + b"X: a\r\n Content-Length: 2\r\n\r\n{}" + SMUGGLED,
    "bare newlines": HEAD.replace(b"\r\n", b"\n") + b"Transfer-Encoding: chunked\n\n0\n\n" + SMUGGLED,
    "bad chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
    "upgrade": HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "two requests": HEAD + b"Content-Length: 2\r\n\r\n{}" + SMUGGLED,
}


@pytest.mark.parametrize("request_bytes", SMUGGLING.values(), ids=list(SMUGGLING))
async def test_a_request_hidden_in_another_never_reaches_the_agent(
    fake: FakeAgent, before_fake: Guarded, request_bytes: bytes
) -> None:
    answer = await before_fake.raw(request_bytes)
    assert answer == b"" or answer.split()[1] in (b"200", b"400", b"403"), answer
    # What did reach it is on the list, and the guard wrote it anew.
    for method, path, headers, _ in fake.requests:
        assert (method, path) in (("GET", "/api/session/ses_a"), ("POST", "/api/session/ses_a/interrupt"))
        assert "transfer-encoding" not in headers


async def test_an_honest_request_of_that_kind_is_answered(fake: FakeAgent, before_fake: Guarded) -> None:
    answer = await before_fake.raw(SMUGGLING["two requests"])
    assert [part.split()[0] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"403", b"403"]
    assert [request[:2] for request in fake.requests][-1] == ("POST", "/api/session/ses_a/interrupt")


@pytest.mark.parametrize("name", ["both lengths", "two lengths", "length list", "odd encoding", "blank before colon"])
async def test_a_request_of_two_lengths_is_not_answered_at_all(
    fake: FakeAgent, before_fake: Guarded, name: str
) -> None:
    answer = await before_fake.raw(SMUGGLING[name])
    assert answer == b"" or answer.split()[1] == b"400", answer
    assert fake.requests == []


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "127.0.0.1.example.com",
        "127.0.0.1:80:80",
        "127.0.0.2",
        "localhost.",
        "0.0.0.0",
        "",
        "@127.0.0.1",
    ],
)
async def test_another_host_is_refused(guard: Guarded, host: str) -> None:
    answer = await guard.client.get(HEALTH, headers={"host": host})
    assert answer.status_code in (400, 403)
    if answer.status_code == 403:
        assert "127.0.0.1" in refusal(answer)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:4096", "localhost:1", "LOCALHOST", "[::1]:4096"])
async def test_loopback_by_any_port_is_taken(guard: Guarded, host: str) -> None:
    assert (await guard.client.get(HEALTH, headers={"host": host})).status_code == 200


async def test_two_hosts_are_refused(guard: Guarded) -> None:
    answer = await guard.raw(b"GET /global/health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: example.com\r\n\r\n")
    assert answer.split()[1] in (b"400", b"403")


@pytest.mark.parametrize("origin", ["null", "http://localhost:4096", "http://127.0.0.1", "https://example.com", ""])
async def test_a_web_page_is_refused(guard: Guarded, origin: str) -> None:
    assert "web pages" in refusal(await guard.client.get(HEALTH, headers={"origin": origin}))


async def test_what_a_browser_fetches_without_an_origin_is_refused(guard: Guarded) -> None:
    assert "web pages" in refusal(await guard.client.get(HEALTH, headers={"sec-fetch-site": "cross-site"}))


async def test_another_user_of_the_machine_cannot_use_the_socket(guard: Guarded) -> None:
    mode = stat.S_IMODE(guard.socket.stat().st_mode)
    assert mode == 0o600
    connect = f"socket.socket(socket.AF_UNIX).connect({str(guard.socket)!r})"
    guard.socket.parent.chmod(0o711)
    # Root may connect to anything; what it becomes may not.
    become = "os.setgid(65534); os.setuid(65534);" if os.geteuid() == 0 else "raise PermissionError;"
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"import os, socket; {become} {connect}", stderr=asyncio.subprocess.PIPE
    )
    _, said = await done.communicate()
    assert b"PermissionError" in said


WRONG = [None, "", "x", CREDENTIALS[1] + "x", CREDENTIALS[1][:-1]]


@pytest.mark.parametrize("password", WRONG)
async def test_on_a_port_the_password_is_asked_for(guard: Guarded, password: str | None) -> None:
    url = f"http://127.0.0.1:{guard.port}"
    headers = {"authorization": sent} if (sent := basic("opencode", password)) else {}
    async with httpx.AsyncClient(base_url=url, trust_env=False, verify=NO_TLS) as client:
        for path in (HEALTH, DOCUMENT, "/session", "/api/session"):
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Basic realm="opencode"'
        assert (await client.get(f"{HEALTH}?auth_token=x")).status_code == 401
        right = await client.get(HEALTH, auth=CREDENTIALS)
    assert right.status_code == 200


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Bearer x", "Basic " + "A" * 9000])
async def test_a_broken_password_is_a_wrong_one(guard: Guarded, header: str) -> None:
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        answer = await client.get(f"http://127.0.0.1:{guard.port}{HEALTH}", headers={"authorization": header})
    assert answer.status_code == 401


async def test_nothing_of_the_callers_headers_reaches_the_agent(fake: FakeAgent, before_fake: Guarded) -> None:
    headers = {
        "authorization": "Basic stolen",
        "cookie": "a=b",
        "x-forwarded-for": "10.0.0.1",
        "forwarded": "for=10.0.0.1",
        "x-anything": "x",
        "user-agent": "somebody",
    }
    answer = await before_fake.client.post("/api/session/ses_a/interrupt", json={}, headers=headers)
    assert answer.status_code == 200
    _, _, seen, _ = fake.requests[-1]
    assert set(seen) <= {"host", "accept", "accept-encoding", "authorization", "content-type", "content-length",
                         "user-agent", "connection"}  # fmt: skip
    assert seen["authorization"] == "Basic of-the-agent"
    assert "somebody" not in str(seen)


async def test_a_body_of_30_mb_is_refused_and_the_guard_goes_on(agent: Agent, guard: Guarded) -> None:
    session = agent.session(agent.directory)
    path = agent.of(session) + ("/prompt" if agent.generation == 2 else "/prompt_async")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opencode_connected.guard.gate.read_object", None)  # it must not be read as JSON at all
        text = "x" * (30 << 20)
        body = {"text": text} if agent.generation == 2 else {"parts": [{"type": "text", "text": text}]}
        content = json.dumps(body).encode()

        async def dripping() -> AsyncIterator[bytes]:
            for start in range(0, len(content), 1 << 20):
                yield content[start : start + (1 << 20)]

        for sent in (content, dripping()):
            try:
                answer = await guard.client.post(path, content=sent, headers={"content-type": "application/json"})
            except httpx.TransportError:
                continue  # the guard ended the connection before all was sent
            assert "longer than 8 MiB" in refusal(answer)
    assert (await guard.client.get(HEALTH)).status_code == 200


async def test_long_headers_and_lines_are_refused(before_fake: Guarded, fake: FakeAgent) -> None:
    for request in (
        b"GET /api/session?search=" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
    ):
        answer = await before_fake.raw(request)
        assert answer == b"" or answer.split()[1] == b"400"
    assert fake.requests == []


async def test_a_packed_body_is_refused(fake: FakeAgent, before_fake: Guarded) -> None:
    answer = await before_fake.client.post(
        "/api/session/ses_a/interrupt", content=b"\x1f\x8b", headers={"content-encoding": "gzip"}
    )
    assert "packed" in refusal(answer)
    assert fake.requests == []


async def test_more_connections_than_allowed_end_at_once_and_room_comes_back(before_fake: Guarded) -> None:
    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(before_fake.socket)

    held = [await connect() for _ in range(MAX_CONNECTIONS)]
    reader, writer = await connect()
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
    assert any("beyond" in line for line in before_fake.said)
    for _, one in held:
        one.close()
        await one.wait_closed()
    async with asyncio.timeout(60):
        while True:
            try:
                answer = await before_fake.client.get(HEALTH)
                break
            except httpx.TransportError:
                continue
    assert answer.status_code == 503


async def test_redirects_and_web_pages_of_what_is_in_the_agents_place_go_no_further() -> None:
    answers = {
        "redirect": lambda: web.Response(status=302, headers={"location": "http://example.com", "set-cookie": "a=b"}),
        "page": lambda: web.Response(text="<html>", content_type="text/html"),
        "packed": lambda: web.Response(body=b"x", headers={"content-encoding": "gzip"}),
    }
    for kind, make in answers.items():

        async def answer(request: web.Request, make=make) -> web.Response:  # type: ignore[no-untyped-def]
            return make() if request.path == "/openapi.json" else session_in("/opened")

        async with fake_agent(answer) as fake, guarded(fake.target(), opened("/opened")) as guard:
            got = await guard.client.get("/openapi.json")
            assert (got.status_code, got.json()["name"]) == (502, "AgentUnavailable"), kind
            assert "location" not in got.headers
            assert "set-cookie" not in got.headers


async def test_a_refusal_is_logged_once_a_minute_without_what_was_sent(before_fake: Guarded) -> None:
    for _ in range(20):
        await before_fake.client.post("/api/shell?x=secret", json={"command": "secret"})
    assert len(before_fake.said) == 1
    assert "POST /api/shell" in before_fake.said[0]
    assert "secret" not in before_fake.said[0]


async def test_closing_removes_the_socket_and_ends_what_runs(tmp_path: Path, agent2: Agent) -> None:
    async with guarded(agent2.target, opened(agent2.directory)) as guard:
        async with guard.client.stream("GET", "/api/event") as events:
            lines = events.aiter_lines()
            assert "server.connected" in await anext(lines)
            await guard.guard.close()
            # However it ends, but not by the reader's patience.
            with suppress(httpx.ReadError, httpx.RemoteProtocolError):
                async for _ in lines:
                    pass
        assert not guard.socket.exists()
    assert tmp_path.exists()
