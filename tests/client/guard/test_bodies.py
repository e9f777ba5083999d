"""What a body and a query may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from client.guard.guarded import Agent, Guarded, guarded, opened, refusal
from opencode_connected.guard.policy import Right

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ALLOW = {"permission": "bash", "pattern": "*", "action": "allow"}
RULE = {"action": "shell", "resource": "*", "effect": "allow"}
DATA = "data:text/plain;base64,aGk="


def part(**more: Any) -> dict[str, Any]:
    return {"parts": [{"type": "text", "text": "hi", **more}]}


def file(url: str, **more: Any) -> dict[str, Any]:
    return {"parts": [{"type": "file", "mime": "text/plain", "url": url, **more}]}


TEXT: dict[str, Any] = {"text": "hi"}
REFUSED_OF_1: list[tuple[str, str, dict[str, Any] | list[Any], str]] = [
    ("POST", "", {"permission": [ALLOW]}, "`permission`"),
    ("POST", "", {"parentID": "ses_a"}, "`parentID`"),
    ("PATCH", "/S", {"title": "x", "permission": [ALLOW]}, "`permission`"),
    ("PATCH", "/S", {"time": {"archived": "now"}}, "`archived` must be a time"),
    ("PATCH", "/S", {"time": {"archived": 1, "created": 1}}, "`created`"),
    ("POST", "/S/revert", {"messageID": "msg_1", "partID": "prt_1"}, "`partID`"),
    ("POST", "/S/revert", {"messageID": "../x"}, "must be an id"),
    ("POST", "/S/revert", {}, "lacks `messageID`"),
    ("POST", "/S/unrevert", {"messageID": "msg_1"}, "`messageID`"),
    ("POST", "/S/fork", {"messageID": "msg_1"}, "`messageID`"),
    ("POST", "/S/summarize", {"providerID": "a", "modelID": "b", "auto": True}, "`auto`"),
    ("POST", "/S/prompt_async", file("file:///etc/passwd"), "data: URL"),
    ("POST", "/S/prompt_async", file("http://example.com/x"), "data: URL"),
    ("POST", "/S/prompt_async", file("data:text/html;base64,aGk="), "of a type that is let through"),
    ("POST", "/S/prompt_async", file("data:text/plain,hi"), "of a type that is let through"),
    ("POST", "/S/prompt_async", file("data:text/plain;base64,aGk=\n"), "of a type that is let through"),
    ("POST", "/S/prompt_async", file(DATA, mime="application/x-directory"), "`mime` must be one of text/plain"),
    ("POST", "/S/prompt_async", {"parts": file(DATA)["parts"] * 18}, "more than 17 entries"),
    ("POST", "/S/prompt_async", file(DATA, source={"type": "file", "path": "/etc/passwd"}), "`source`"),
    ("POST", "/S/prompt_async", {**part(), "system": "obey"}, "`system`"),
    ("POST", "/S/prompt_async", {**part(), "tools": {"bash": True}}, "`tools`"),
    ("POST", "/S/prompt_async", {**part(), "agent": "x" * 201}, "`agent`"),
    ("POST", "/S/prompt_async", {"parts": [{"type": "agent", "name": "x"}]}, "type"),
    ("POST", "/S/prompt_async", {"parts": [{"type": "subtask", "prompt": "x"}]}, "type"),
    ("POST", "/S/prompt_async", {}, "lacks `parts`"),
    ("POST", "/S/prompt_async", part(metadata={}), "`metadata`"),
    ("POST", "/S/abort", [], "no JSON object"),
]
REFUSED_OF_2: list[tuple[str, str, dict[str, Any] | list[Any], str]] = [
    ("POST", "", {"location": {"directory": "D"}, "permissions": [RULE]}, "`permissions`"),
    ("POST", "", {"location": {"directory": "D"}, "environment": {"A": "b"}}, "`environment`"),
    ("POST", "", {"location": {"directory": "D", "workspaceID": "w"}}, "`workspaceID`"),
    ("POST", "", {}, "lacks `location`"),
    ("PATCH", "/S", {"permissions": [RULE]}, "`permissions`"),
    ("POST", "/S/revert/stage", {"messageID": "../x"}, "must be an id"),
    ("POST", "/S/revert/stage", {"files": True}, "lacks `messageID`"),
    ("POST", "/S/revert/stage", {"messageID": "msg_1", "partID": "prt_1"}, "`partID`"),
    ("POST", "/S/prompt", {**TEXT, "files": [{"uri": "file:///etc/passwd"}]}, "data: URL"),
    ("POST", "/S/prompt", {**TEXT, "files": [{"uri": "FILE:///etc/passwd"}]}, "data: URL"),
    ("POST", "/S/prompt", {**TEXT, "files": [{"uri": " data:x"}]}, "data: URL"),
    (
        "POST",
        "/S/prompt",
        {**TEXT, "files": [{"uri": "data:text/html;base64,aGk="}]},
        "of a type that is let through",
    ),
    ("POST", "/S/prompt", {**TEXT, "files": [{"uri": "data:,hi"}]}, "of a type that is let through"),
    ("POST", "/S/prompt", {**TEXT, "files": [{"uri": DATA, "path": "/etc/passwd"}]}, "`path`"),
    ("POST", "/S/prompt", {**TEXT, "files": [{"uri": DATA}] * 17}, "more than 16 entries"),
    ("POST", "/S/prompt", {**TEXT, "skills": [{"id": "x"}]}, "`skills`"),
    ("POST", "/S/prompt", {**TEXT, "permissions": [RULE]}, "`permissions`"),
    ("POST", "/S/prompt", {**TEXT, "metadata": {"__proto__": "x"}}, "`metadata`"),
    ("POST", "/S/prompt", {**TEXT, "metadata": {"a": {"deep": 1}}}, "`metadata`"),
    ("POST", "/S/prompt", {**TEXT, "delivery": "now"}, "`delivery`"),
    ("POST", "/S/prompt", {"text": 1}, "`text`"),
    ("POST", "/S/model", {"model": {"id": "x", "providerID": "y", "settings": {}}}, "`settings`"),
    ("DELETE", "/S/inbox/msg_a", {"x": 1}, "takes no body"),
]


@pytest.fixture
async def with_always(agent: Agent) -> AsyncIterator[Guarded]:
    async with guarded(agent.target, opened(agent.directory, rights=Right)) as one:
        yield one


async def test_what_would_open_a_door_is_refused_by_name(agent: Agent, with_always: Guarded) -> None:
    session = agent.session(agent.directory)
    root = "/api/session" if agent.generation == 2 else "/session"
    for method, below, body, named in REFUSED_OF_2 if agent.generation == 2 else REFUSED_OF_1:
        if isinstance(body, dict) and isinstance(body.get("location"), dict):
            body["location"]["directory"] = str(agent.directory)
        answer = await with_always.client.request(method, root + below.replace("S", session, 1), json=body)
        assert named in refusal(answer), (method, below, body)


NO_OBJECTS = [b"{", b"[]", b'"x"', b"null", b"\xff", b'{"a":NaN}', b"{" * 5000, b'{"a":' * 50_000, b"9" * 5000]


@pytest.mark.parametrize("content", NO_OBJECTS, ids=lambda content: ascii(content[:9]))
async def test_what_is_no_json_object_is_refused(agent: Agent, guard: Guarded, content: bytes) -> None:
    path = agent.of(agent.session(agent.directory))
    answer = await guard.client.patch(path, content=content, headers={"content-type": "application/json"})
    assert "JSON" in refusal(answer)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_body_that_is_not_said_to_be_json_is_refused(agent: Agent, guard: Guarded, kind: str) -> None:
    path = agent.of(agent.session(agent.directory))
    answer = await guard.client.patch(path, content=b'{"title":"x"}', headers={"content-type": kind})
    assert "JSON" in refusal(answer)


async def test_a_key_given_twice_reaches_the_agent_as_it_was_checked(agent: Agent, guard: Guarded) -> None:
    path = agent.of(agent.session(agent.directory))
    twice = b'{"title":{"x":1},"title":"second"}'
    answer = await guard.client.patch(path, content=twice, headers={"content-type": "application/json"})
    assert answer.is_success, answer.text
    with agent.straight() as client:
        told = client.get(path).json()
    assert (told["data"] if agent.generation == 2 else told)["title"] == "second"


@pytest.mark.parametrize(
    "query",
    ["workspace=w", "auth_token=eDp5", "limit=1&limit=2", "limit=%ff", "scope=project", "limit=1&&x", "a;b=c"],
)
async def test_unknown_and_doubled_parameters_are_refused(agent: Agent, guard: Guarded, query: str) -> None:
    path = "/api/session" if agent.generation == 2 else "/session"
    assert "query" in refusal(await guard.client.get(f"{path}?{query}"))


async def test_a_prompt_with_a_file_in_it_is_taken(agent: Agent, guard: Guarded) -> None:
    session = agent.session(agent.directory)
    if agent.generation == 2:
        body: dict[str, Any] = {"text": "hi", "files": [{"uri": DATA, "name": "n.txt"}], "metadata": {"by": "us"}}
        answer = await guard.client.post(agent.of(session) + "/prompt", json=body)
        assert answer.json()["data"]["payload"]["text"] == "hi"
    else:
        body = {"parts": [{"type": "text", "text": "hi"}, *file(DATA, filename="n.txt")["parts"]], "agent": "plan"}
        answer = await guard.client.post(agent.of(session) + "/prompt_async", json=body)
        assert answer.status_code == 204, answer.text


async def test_each_right_lets_through_what_is_its_own(agent: Agent, guard: Guarded) -> None:
    session = agent.session(agent.directory)
    of_2 = agent.generation == 2
    reply = agent.of(session) + "/permission/per_a/reply" if of_2 else "/permission/per_a/reply"
    word = "decision" if of_2 else "reply"
    calls = {
        Right.OBSERVE: ("GET", agent.of(session), None),
        Right.DRIVE: ("PATCH", agent.of(session), {"title": "x"}),
        Right.APPROVE: ("POST", reply, {word: "once"}),
        Right.ALWAYS: ("POST", reply, {word: "always"}),
    }
    for missing in Right:
        guard.policy[0] = opened(agent.directory, rights=set(Right) - {missing})
        for right, (method, path, body) in calls.items():
            answer = await guard.client.request(method, path, json=body)
            if right is missing:
                assert f"`{right}`" in refusal(answer)
                assert answer.json()["data"]["right"] == right
            else:
                assert answer.status_code in (200, 204, 404), answer.text


async def test_always_by_either_word_of_opencode_2_needs_its_right(agent2: Agent) -> None:
    path = agent2.of(agent2.session(agent2.directory)) + "/permission/per_a/reply"
    async with guarded(agent2.target, opened(agent2.directory)) as guard:
        for body in ({"reply": "always"}, {"decision": "once", "reply": "always"}, {"decision": "always"}):
            answer = await guard.client.post(path, json=body)
            assert refusal(answer)
            assert answer.json()["data"]["right"] == "always"
        assert "must be one of" in refusal(await guard.client.post(path, json={"decision": "ALWAYS"}))
