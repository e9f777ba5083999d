"""What comes back: large answers in pieces, cut ones as cut, and not too many calls at once."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from contextlib import AsyncExitStack, suppress

import httpx
import pytest
from aiohttp import web

from client.guard.fake_agent import fake_agent, session_in
from client.guard.guarded import guarded, opened
from opencode_connected.guard.calls import MAX_CALLS, MAX_READ
from opencode_connected.guard.thinning import MAX_PATCH
from support.waiting import eventually_async

PATH = "/api/session/ses_a"
PATH_1 = "/session/ses_a"
LARGE = json.dumps({"data": ["x" * 1000] * 20_000}).encode()


@pytest.mark.parametrize("is_sized", [True, False])
async def test_a_large_answer_comes_whole(is_sized: bool) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/message/msg_a"):
            return session_in("/opened")
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.content_length = len(LARGE) if is_sized else None
        await response.prepare(request)
        for start in range(0, len(LARGE), 100_000):
            await response.write(LARGE[start : start + 100_000])
        return response

    assert len(LARGE) > MAX_READ
    async with fake_agent(answer) as fake, guarded(fake.target(), opened("/opened")) as guard:
        told = await guard.client.get(f"{PATH}/message/msg_a")
        assert told.content == LARGE


async def test_an_answer_that_is_cut_is_seen_to_be_cut() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/message/msg_a"):
            return session_in("/opened")
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        await response.write(LARGE[:500_000])
        assert request.transport is not None
        request.transport.abort()
        return response

    async with fake_agent(answer) as fake, guarded(fake.target(), opened("/opened")) as guard:
        with pytest.raises(httpx.TransportError):
            await guard.client.get(f"{PATH}/message/msg_a")
        assert (await guard.client.get(PATH)).status_code == 200


@pytest.mark.parametrize("is_sized", [True, False])
@pytest.mark.parametrize("path", ["/api/session", f"{PATH}/diff", f"{PATH}/message"])
async def test_what_is_too_long_to_be_filtered_or_thinned_is_refused(path: str, is_sized: bool) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path != path:
            return session_in("/opened")
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.content_length = len(LARGE) if is_sized else None
        await response.prepare(request)
        with suppress(ConnectionError):  # the guard reads no further than it must
            await response.write(LARGE)
        return response

    async with fake_agent(answer) as fake, guarded(fake.target(), opened("/opened")) as guard:
        told = await guard.client.get(path)
        assert (told.status_code, told.json()["name"]) == (502, "AnswerTooLarge")
        assert "more than 8 MiB" in told.json()["data"]["message"]


async def test_at_most_so_many_calls_reach_the_agent_at_once_and_all_are_answered() -> None:
    go_on = asyncio.Event()
    now = 0
    most = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal now, most
        if not request.path.endswith("/message"):
            return session_in("/opened")
        now += 1
        most = max(most, now)
        await go_on.wait()
        now -= 1
        return web.json_response({"data": []})

    async with fake_agent(answer) as fake, guarded(fake.target(), opened("/opened")) as guard:
        assert (await guard.client.get(PATH)).status_code == 200
        calls = [asyncio.create_task(guard.client.get(f"{PATH}/message")) for _ in range(MAX_CALLS + 8)]
        await eventually_async(lambda: now == MAX_CALLS, "the calls that may be made at once")
        go_on.set()
        assert {call.status_code for call in await asyncio.gather(*calls)} == {200}
        assert most == MAX_CALLS


@pytest.mark.parametrize("status", [400, 404, 409, 500])
async def test_an_error_of_the_agents_is_passed_on(status: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        if not request.path.endswith("/message"):
            return session_in("/opened")
        return web.json_response({"message": "why"}, status=status) if status != 500 else web.Response(status=500)

    async with fake_agent(answer) as fake, guarded(fake.target(), opened("/opened")) as guard:
        told = await guard.client.get(f"{PATH}/message")
        assert told.status_code == status
        assert told.text == ("" if status == 500 else '{"message": "why"}')


@pytest.mark.parametrize(
    ("generation", "method", "path", "body"),
    [
        (1, "GET", "/session", None),
        (1, "GET", PATH_1, None),
        (1, "PATCH", PATH_1, {"title": "tea"}),
        (1, "POST", f"{PATH_1}/fork", {}),
        (1, "POST", f"{PATH_1}/revert", {"messageID": "msg_a"}),
        (1, "POST", f"{PATH_1}/unrevert", {}),
        (2, "GET", "/api/session", None),
        (2, "GET", PATH, None),
        (2, "POST", f"{PATH}/fork", {}),
        (2, "POST", f"{PATH}/revert/stage", {"messageID": "msg_a", "files": True}),
    ],
)
async def test_of_what_a_session_took_back_goes_only_from_which_message_on(
    generation: int, method: str, path: str, body: dict[str, object] | None
) -> None:
    session = {"id": "ses_a", "directory": "/opened", "location": {"directory": "/opened"}}
    whole: dict[str, object] = {
        "messageID": "msg_a",
        "snapshot": "5f3a",
        "diff": "d" * 2_000_000,
        "files": [{"patch": "d" * 90_000}],
    }

    def told(revert: dict[str, object]) -> object:
        undone = {**session, "revert": revert}
        if path.endswith("/revert/stage"):
            return {"data": revert}
        found = [undone, session] if path.endswith("/session") else undone
        return found if generation == 1 else {"data": found}

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path != path:
            return session_in("/opened") if generation == 2 else web.json_response(session)
        return web.json_response(told(whole))

    async with fake_agent(answer) as fake, guarded(fake.target(generation), opened("/opened")) as guard:
        answered = await guard.client.request(method, path, json=body)
    assert answered.json() == told({"messageID": "msg_a"})


FILE = {"type": "file", "id": "prt_1", "filename": "a.png", "url": "data:image/png;base64," + "A" * 50_000}
STATE = {"status": "completed", "input": {"content": "x" * 50_000, "command": "make"}, "output": "y" * 49_999 + "z"}
CALL = {"type": "tool", "id": "prt_2", "tool": "bash", "state": {**STATE, "metadata": {"output": "y" * 50_000}}}
TEXT = {"type": "text", "id": "prt_3", "text": "t" * 600_000}
PAGE = [{"info": {"id": "msg_a", "role": "user", "summary": {"diffs": ["d" * 50_000]}}, "parts": [FILE, CALL, TEXT]}]


async def opencode1_with_a_page(request: web.Request) -> web.Response:
    if "/message" not in request.path:
        return web.json_response({"id": "ses_a", "directory": "/opened"})
    if request.path.endswith("/message"):
        return web.json_response(PAGE, headers={"x-next-cursor": request.query.get("before", "eyJ9"), "x-other": "1"})
    return web.json_response(PAGE[0])


async def test_of_a_page_of_messages_goes_what_is_read_of_it_and_how_to_go_on() -> None:
    async with fake_agent(opencode1_with_a_page) as fake, guarded(fake.target(1), opened("/opened")) as guard:
        page = await guard.client.get("/session/ses_a/message?limit=1")
        assert len(page.content) < 605_000
        (message,) = page.json()
        assert message["info"] == {"id": "msg_a", "role": "user", "summary": {}}
        file, call, text = message["parts"]
        assert text == TEXT
        assert file == {"type": "file", "id": "prt_1", "filename": "a.png"}
        assert call["state"]["input"] == {"command": "make"}
        assert call["state"]["output"] == "…" + "y" * 3_999 + "z"
        assert page.headers["x-next-cursor"] == "eyJ9"
        assert "x-other" not in page.headers
        whole = await guard.client.get("/session/ses_a/message/msg_a")
        assert whole.json() == PAGE[0]


@pytest.mark.parametrize("cursor", ["%C3%A4", "a%20b", "x" * 1_000])
async def test_only_what_can_be_a_cursor_is_passed_on(cursor: str) -> None:
    async with fake_agent(opencode1_with_a_page) as fake, guarded(fake.target(1), opened("/opened")) as guard:
        page = await guard.client.get(f"/session/ses_a/message?limit=1&before={cursor}")
        assert page.headers.get("x-next-cursor") == (cursor if cursor.isalpha() else None)


async def test_of_a_page_that_is_read_slowly_only_what_goes_on_is_kept() -> None:
    parts = [{"type": "text", "id": f"prt_{number}", "text": "a" * 100} for number in range(100)]
    raw = json.dumps([{"info": {"id": "msg_a"}, "parts": parts}] * 100).encode()
    body = len(json.dumps(json.loads(raw), separators=(",", ":")))

    async def answer(request: web.Request) -> web.Response:
        if not request.path.endswith("/message"):
            return web.json_response({"id": "ses_a", "directory": "/opened"})
        return web.Response(body=raw, content_type="application/json")

    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(fake_agent(answer))
        guard = await stack.enter_async_context(guarded(fake.target(1), opened("/opened")))

        async def begin_to_read() -> None:
            reader, writer = await asyncio.open_unix_connection(guard.socket)
            stack.callback(writer.close)
            writer.write(b"GET /session/ses_a/message HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            # What comes after it is not taken beyond the buffers.
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")

        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        await asyncio.gather(*(begin_to_read() for _ in range(8)))
        now, most = tracemalloc.get_traced_memory()
        # Eight bodies, also in buffers; with what two pages were parsed into while those were thinned.
        assert now < 8 * 3 * body
        assert most < (8 * 2 + 2 * 6) * body


async def test_a_piece_of_an_unknown_kind_leaves_the_rest_of_a_page_as_it_is() -> None:
    pieces = [{"type": ["text"], "text": "odd"}, {"type": "text", "text": "hello"}]

    async def answer(request: web.Request) -> web.Response:
        if not request.path.endswith("/message"):
            return session_in("/opened")
        return web.json_response({"data": [{"id": "msg_a", "content": pieces}]})

    async with fake_agent(answer) as fake, guarded(fake.target(), opened("/opened")) as guard:
        page = await guard.client.get(f"{PATH}/message")
        assert page.json() == {"data": [{"id": "msg_a", "content": [{"type": ["text"]}, pieces[1]]}]}


@pytest.mark.parametrize(
    ("generation", "path"),
    [
        (1, "/vcs/diff?directory=/opened&mode=git"),
        (1, f"{PATH_1}/diff?messageID=msg_a"),
        (2, "/api/vcs/diff?location[directory]=/opened&mode=working"),
        (2, f"{PATH}/diff"),
    ],
)
async def test_of_changed_files_as_much_is_let_through_as_somebody_reads(generation: int, path: str) -> None:
    files = [{"file": f"{number}.py", "patch": "x" * 60_000, "additions": 3, "before": "all"} for number in range(20)]

    async def answer(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/diff"):
            return session_in("/opened") if generation == 2 else web.json_response({"directory": "/opened"})
        return web.json_response(files if generation == 1 else {"data": files})

    async with fake_agent(answer) as fake, guarded(fake.target(generation), opened("/opened")) as guard:
        told = (await guard.client.get(path)).json()
    entries = told if generation == 1 else told["data"]
    assert [(entry["file"], entry["additions"]) for entry in entries] == [(f"{n}.py", 3) for n in range(20)]
    assert [len(entry["patch"]) for entry in entries] == [MAX_PATCH] * 10 + [0] * 10
    assert not any("before" in entry for entry in entries)


@pytest.mark.parametrize("odd", [None, [None, 5, {"patch": 5}], {"data": [[]]}, {"data": 5}])
async def test_changed_files_of_another_shape_break_nothing(odd: object) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(odd) if request.path.endswith("/diff") else session_in("/opened")

    async with fake_agent(answer) as fake, guarded(fake.target(), opened("/opened")) as guard:
        assert (await guard.client.get(f"{PATH}/diff")).status_code == 200
