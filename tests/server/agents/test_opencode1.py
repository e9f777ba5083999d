"""OpenCode 1 behind the seam, where it surprises: what it goes on listing, answers together, or forgets."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet.agents.guard import GuardDocument
from opencode_fleet.agents.opencode1 import OpenCode1
from opencode_fleet.errors import Refused, Rejected
from opencode_fleet.model import Prompt
from support.opencodes.connected import client_for
from support.opencodes.fake_http import FakeHttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiohttp import web

HOME = "/home/ann/api"
SESSION: dict[str, Any] = {"id": "ses_1", "directory": HOME, "time": {"created": 1, "updated": 2}}


def message(message_id: str, role: str, text: str = "", *, answers: str = "", **info: object) -> dict[str, Any]:
    head = {"id": message_id, "role": role, "sessionID": "ses_1", "parentID": answers, "time": {"created": 1}, **info}
    return {"info": head, "parts": [{"id": f"prt_{message_id}", "type": "text", "text": text}] if text else []}


def answer(message_id: str, text: str, to: str, finish: str = "stop", **info: object) -> dict[str, Any]:
    done = {"finish": finish, "time": {"created": 1, "completed": 2}}
    return message(message_id, "assistant", text, answers=to, **{**done, **info})


def asked(number: int, message_id: str = "") -> dict[str, Any]:
    tool = {"tool": {"messageID": message_id, "callID": "call_1"}} if message_id else {}
    return {"id": f"per_{number}", "sessionID": "ses_1", "permission": "bash", "patterns": ["ls"], **tool}


@asynccontextmanager
async def opencode1(answers: Mapping[str, object]) -> AsyncIterator[tuple[OpenCode1, FakeHttp]]:
    usual: dict[str, object] = {
        "GET /global/health": {"healthy": True, "version": "1.18.33"},
        "GET /path": {"directory": HOME},
        "GET /session": [SESSION],
        "GET /session/ses_1": SESSION,
        "GET /session/ses_1/message": [],
        "GET /session/status": {},
        "GET /permission": [],
        "GET /question": [],
        "POST /session/ses_1/prompt_async": None,
    }
    async with FakeHttp({**usual, **answers}) as server:
        client = client_for(server.url)
        try:
            yield await OpenCode1.connect(client), server
        finally:
            await client.aclose()


# -- asks -----------------------------------------------------------------------------------------------------------


async def test_an_ask_whose_tool_call_has_ended_is_dead_and_not_offered() -> None:
    """It was aborted by somebody else, and its session runs a new turn."""
    answers = {
        "GET /session/status": {"ses_1": {"type": "busy"}},
        "GET /permission": [
            asked(1, "msg_done"),
            asked(2, "msg_runs"),
            asked(3, "msg_gone"),
            asked(4),
            asked(5, "msg_bad"),
        ],
        "GET /question": [{"id": "que_1", "sessionID": "ses_1", "tool": {"messageID": "msg_done"}}],
        "GET /session/ses_1/message/msg_done": answer("msg_done", "", "msg_1", "tool-calls"),
        "GET /session/ses_1/message/msg_runs": message("msg_runs", "assistant"),
        "GET /session/ses_1/message/msg_bad": message("msg_bad", "assistant", error={"name": "MessageAbortedError"}),
    }
    async with opencode1(answers) as (agent, _):
        runs = await agent.runs()
    assert [ask.id for ask in runs.asks] == ["per_2", "per_4"]
    assert runs.statuses.keys() == {"ses_1"}


# -- turns ----------------------------------------------------------------------------------------------------------


CONVERSATION = [
    message("msg_0", "user", "before"),
    answer("msg_a0", "of before", "msg_0"),
    message("msg_1", "user", "mine"),
    answer("msg_a1", "a tool first", "msg_1", "tool-calls"),
    answer("msg_a2", "mine: done", "msg_1"),
    message("msg_2", "user", "later"),
    answer("msg_a3", "of later", "msg_2"),
]


async def test_the_answers_to_a_message_are_those_up_to_the_next() -> None:
    async with opencode1({"GET /session/ses_1/message": CONVERSATION}) as (agent, _):
        record = await agent.turn("ses_1", "msg_1")
        assert [each.text for each in record.answers] == ["a tool first", "mine: done"]
        assert (record.is_stored, record.is_shared) == (True, False)
        assert not (await agent.turn("ses_1", "msg_nobody")).is_stored
        assert not (await agent.turn("ses_1", "")).is_stored


async def test_a_message_that_came_while_another_waited_shares_its_answer() -> None:
    together = [*CONVERSATION[2:4], message("msg_2", "user", "later"), answer("msg_a3", "to both", "msg_2")]
    async with opencode1({"GET /session/ses_1/message": together}) as (agent, _):
        record = await agent.turn("ses_1", "msg_1")
        assert record.is_shared
        assert [each.text for each in record.answers] == ["a tool first", "to both"]


@pytest.mark.parametrize("mark", [{"summary": True}, {"mode": "compaction"}])
async def test_a_compaction_s_summary_is_no_answer_and_its_own_words_no_message_of_a_person(
    mark: dict[str, Any],
) -> None:
    own = {**message("msg_x", "user"), "parts": [{"id": "prt_x", "type": "text", "text": "go on", "synthetic": True}]}
    compacted = [CONVERSATION[2], answer("msg_s", "what was before", "msg_x", **mark), own, CONVERSATION[4]]
    async with opencode1({"GET /session/ses_1/message": compacted}) as (agent, _):
        record = await agent.turn("ses_1", "msg_1")
        assert ([each.text for each in record.answers], record.is_shared) == (["mine: done"], False)
        assert [each.role for each in await agent.messages("ses_1", 10)] == ["user", "assistant", "note", "assistant"]


# -- messages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "sent"),
    [
        (
            {"agent": "plan", "model": {"id": "b", "providerID": "a", "variant": "default"}},
            {"agent": "plan", "model": {"providerID": "a", "modelID": "b"}},
        ),
        (
            {"agent": "plan", "model": {"id": "b", "providerID": "a", "variant": "high"}},
            {"agent": "plan", "model": {"providerID": "a", "modelID": "b"}, "variant": "high"},
        ),
        ({}, {"agent": "review", "model": {"providerID": "c", "modelID": "d/e"}, "variant": "low"}),
    ],
)
async def test_a_message_keeps_the_session_in_its_agent_model_and_variant(
    told: dict[str, Any], sent: dict[str, Any]
) -> None:
    chosen = {"providerID": "c", "modelID": "d/e", "variant": "low"}
    first = message("msg_1", "user", "x", agent="review", model=chosen)
    answers = {
        "GET /session/ses_1": {**SESSION, **told},
        "GET /session/ses_1/message": [first, answer("msg_2", "y", "msg_1", agent="other")],
    }
    async with opencode1(answers) as (agent, server):
        session = await agent.session("ses_1")
        prompt = Prompt("ses_1", "msg_9", "hello", session.agent, session.model, session.variant)
        await agent.prompt(prompt)
        await agent.prompt(prompt)
    first_body, again = server.bodies("POST /session/ses_1/prompt_async")
    part = {"id": "prt_000000000009", "type": "text", "text": "hello"}
    assert first_body == again == {"messageID": "msg_9", "parts": [part], **sent}
    # What the session's record tells is asked for once, by whoever chose it.
    calls = [call for call, _ in server.asked if call.startswith("GET /session/ses_1")]
    assert calls == ["GET /session/ses_1"] + ([] if told else ["GET /session/ses_1/message"] * 2)


async def test_no_more_is_read_than_tells_the_agent_and_model_of_a_session() -> None:
    newest = [message("msg_8", "user", "x", agent="plan"), answer("msg_9", "y", "msg_8")]
    more = (200, json.dumps(newest))
    async with opencode1({"GET /session/ses_1/message": more}) as (agent, server):
        server.headers = {"x-next-cursor": "before"}
        await agent.prompt(Prompt("ses_1", "msg_10", "hello"))
    (body,) = server.bodies("POST /session/ses_1/prompt_async")
    assert body["agent"] == "plan"
    assert len([call for call, _ in server.asked if call == "GET /session/ses_1/message"]) == 1


# -- what there is ---------------------------------------------------------------------------------------------------


async def test_a_snapshot_leaves_out_what_is_not_of_its_directory_and_looks_up_what_runs() -> None:
    answers = {
        "GET /session": [
            SESSION,
            {**SESSION, "id": "ses_away", "directory": "/home/ann/other"},
            {**SESSION, "id": "ses_child", "parentID": "ses_1"},
            {**SESSION, "id": "ses_put_away", "time": {"created": 1, "updated": 9, "archived": 9}},
            {**SESSION, "id": "ses_newer", "time": {"created": 1, "updated": 5}},
            {"id": "no id at all!"},
        ],
        "GET /session/status": {
            "ses_child": {"type": "busy"},
            "ses_1": {"type": "idle"},
            "ses_gone": {"type": "retry", "attempt": 3, "message": "busy there"},
            "not an id": {"type": "busy"},
        },
        "GET /session/ses_child": {**SESSION, "id": "ses_child", "parentID": "ses_1"},
    }
    async with opencode1(answers) as (agent, _):
        snapshot = await agent.snapshot()
    assert [session.id for session in snapshot.sessions] == ["ses_newer", "ses_1", "ses_child"]
    assert {key: status.kind for key, status in snapshot.runs.statuses.items()} == {
        "ses_child": "busy",
        "ses_gone": "retry",
    }
    assert [place.directory for place in snapshot.workplaces] == [HOME]


# -- choices --------------------------------------------------------------------------------------------------------


async def test_an_agent_and_a_model_that_were_chosen_go_with_the_message_and_the_rest_stays() -> None:
    first = message("msg_1", "user", "x", agent="review", model={"providerID": "c", "modelID": "d", "variant": "low"})
    async with opencode1({"GET /session/ses_1/message": [first]}) as (agent, server):
        await agent.switch("ses_1", "plan", "")
        await agent.prompt(Prompt("ses_1", "msg_8", "hello", agent="plan"))
        await agent.prompt(Prompt("ses_1", "msg_9", "hello", model="a/b/c"))
    plan, other = server.bodies("POST /session/ses_1/prompt_async")
    assert (plan["agent"], plan["model"], plan["variant"]) == ("plan", {"providerID": "c", "modelID": "d"}, "low")
    # A variant is of its model alone.
    assert (other["agent"], other["model"]) == ("review", {"providerID": "a", "modelID": "b/c"})
    assert "variant" not in other


async def test_what_a_person_can_choose_is_told_without_subagents_and_helpers() -> None:
    agents = [{"name": "build"}, {"name": "general", "mode": "subagent"}, {"name": "title", "hidden": True}, {}, 5]
    providers = {"providers": [{"id": "a", "models": {"b": {}, "c/d": {"x": 1}}}, {"id": "none", "models": 7}]}
    async with opencode1({"GET /agent": agents, "GET /config/providers": providers}) as (agent, _):
        assert await agent.agents(HOME) == ["build"]
        assert await agent.models(HOME) == ["a/b", "a/c/d"]


async def test_an_older_guard_that_does_not_tell_models_is_said_to_be_old() -> None:
    guard = GuardDocument.model_validate({"guard": 1, "generation": 1, "verbs": ["agent"]})
    client = client_for("http://127.0.0.1:9")
    try:
        with pytest.raises(Refused, match="the guard there does not know 'model' yet: update opencode-relay"):
            await OpenCode1(client, "1.18.33", guard).models(HOME)
    finally:
        await client.aclose()


async def test_a_command_keeps_the_agent_model_and_variant_and_is_posted_once() -> None:
    path = "POST /session/ses_1/command"
    answers = {path: answer("msg_a", "done", "msg_9"), "GET /command": [{"name": "greet", "template": "x"}, {}]}
    async with opencode1(answers) as (agent, server):
        assert await agent.commands(HOME) == ["greet"]
        assert await agent.run("greet", Prompt("ses_1", "msg_9", "Ann", "plan", "a/b/c", "high")) == "msg_9"
    manner = {"agent": "plan", "model": "a/b/c", "variant": "high"}
    assert server.bodies(path) == [{"messageID": "msg_9", "command": "greet", "arguments": "Ann", **manner}]


@pytest.mark.parametrize("first", [None, (200, "no JSON"), (500, "broken")])
async def test_a_command_is_accepted_once_its_message_is_there_however_long_its_turn_lasts(
    first: tuple[int, str] | None,
) -> None:
    held = asyncio.Event()
    look = "GET /session/ses_1/message/msg_9"

    class Slow(FakeHttp):
        async def answer(self, request: web.Request, call: str) -> web.StreamResponse:
            if call.endswith("/command"):
                await held.wait()
            answered = await super().answer(request, call)
            if call == look:
                self.answers[look] = message("msg_9", "user", "Hello")
            return answered

    async with Slow({"GET /global/health": {"healthy": True, "version": "1.18.33"}}) as server:
        if first is not None:
            server.answers[look] = first
        client = client_for(server.url)
        try:
            agent = await OpenCode1.connect(client)
            assert await agent.run("greet", Prompt("ses_1", "msg_9", "Ann", "plan", "a/b")) == "msg_9"
        finally:
            held.set()
            await client.aclose()


async def test_a_command_that_is_refused_is_no_command_that_runs() -> None:
    async with opencode1({"POST /session/ses_1/command": (500, '{"data": {"message": "no"}}')}) as (agent, _):
        with pytest.raises(Rejected):
            await agent.run("greet", Prompt("ses_1", "msg_9", "Ann", "plan", "a/b"))
