"""Long texts that are emptied while an answer arrives: whatever the pieces, what is left is the same document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from client.guard.fake_agent import fake_agent
from client.guard.guarded import guarded, opened
from opencode_connected.guard import calls, long_texts
from opencode_connected.guard.long_texts import MAX_TEXT, LongTexts

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def emptied(content: bytes, size: int) -> bytes:
    texts = LongTexts()
    return b"".join(texts.emptied(content[at : at + size]) for at in range(0, len(content), size))


@given(value=VALUES, ascii_only=st.booleans(), size=st.integers(min_value=1, max_value=40))
def test_a_document_of_short_texts_stays_as_it_is_however_it_is_cut(value: Any, ascii_only: bool, size: int) -> None:
    content = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert emptied(content, size) == content


@pytest.mark.parametrize("size", [1, 2, 7, 1_000, 1 << 20])
def test_a_long_text_becomes_an_empty_one_and_all_else_stays(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_texts, "MAX_TEXT", 100)
    value = {"a": "x" * 100, "b": 'é"\\\n' * 90, "c": ["y" * 101, {"d\\": "\\"}], "e": 5}
    left = json.loads(emptied(json.dumps(value).encode(), size))
    assert left == {"a": "x" * 100, "b": "", "c": ["", {"d\\": "\\"}], "e": 5}


SESSION = {"id": "ses_a", "directory": "/opened", "title": "undone"}
UNDONE = {**SESSION, "revert": {"messageID": "msg_a", "diff": "+" * (calls.MAX_READ + 1)}}
"""What OpenCode 1 tells of a session in which much was taken back."""


@pytest.mark.parametrize("is_sized", [True, False])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/session", None),
        ("GET", "/session/ses_a", None),
        ("PATCH", "/session/ses_a", {"title": "tea"}),
        ("POST", "/session/ses_a/revert", {"messageID": "msg_a"}),
    ],
)
async def test_a_session_is_told_however_much_was_taken_back_in_it(
    method: str, path: str, body: dict[str, object] | None, is_sized: bool
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        content = json.dumps([UNDONE, SESSION] if request.path == "/session" else UNDONE).encode()
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.content_length = len(content) if is_sized else None
        await response.prepare(request)
        await response.write(content)
        return response

    async with fake_agent(answer) as fake, guarded(fake.target(1), opened("/opened")) as guard:
        answered = await guard.client.request(method, path, json=body)
    told = {**SESSION, "revert": {"messageID": "msg_a"}}
    assert answered.json() == ([told, SESSION] if path == "/session" else told)


async def test_a_directory_that_is_no_path_for_its_length_is_none_that_was_opened() -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response({**SESSION, "directory": "/opened" + "/." * MAX_TEXT})

    async with fake_agent(answer) as fake, guarded(fake.target(1), opened("/opened")) as guard:
        assert (await guard.client.get("/session/ses_a")).status_code == 403
