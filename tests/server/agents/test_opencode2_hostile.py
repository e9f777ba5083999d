"""What comes from another machine may be anything: it is validated and bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_fleet.agents.opencode2 import agent as agent_module
from opencode_fleet.agents.opencode2 import records as records_module
from opencode_fleet.agents.opencode2 import wire
from opencode_fleet.agents.opencode2.asks import Form, Permission
from opencode_fleet.agents.opencode2.conversation import messages_of, turn_of
from opencode_fleet.errors import BadAnswer, NotFound, Refused, Rejected
from opencode_fleet.model import MAX_ASK_SHOWN, Prompt, Question
from support.fleet.altered import altered, anything
from support.opencodes.connected import guard_document, opencode2_behind
from support.opencodes.fake_opencode2 import (
    ANSWER,
    ASKED,
    FORM,
    GUARD,
    HOME,
    PROMPT,
    SESSION,
    TOOL,
    FakeOpenCode2,
    Json,
    running,
)


@given(st.sampled_from([PROMPT, ANSWER]), anything, st.integers(1, 20))
def test_an_entry_with_anything_in_it_is_a_message_or_left_out(entry: object, odd: object, place: int) -> None:
    changed, _ = altered(entry, odd, place)
    try:
        entries = [wire.Message.model_validate(each) for each in (PROMPT, changed, ANSWER)]
    except ValueError:
        return
    assert len(messages_of(entries, "ses_1")) <= 3
    assert turn_of(entries, "ses_1", "msg_1") is not None


@given(st.sampled_from([(Permission, ASKED), (Form, FORM)]), anything, st.integers(1, 20))
def test_an_ask_with_anything_in_it_is_an_ask_or_left_out(kind: Any, odd: object, place: int) -> None:
    shape, ask = kind
    changed, _ = altered(ask, odd, place)
    try:
        found = shape.model_validate(changed)
    except ValueError:
        return
    told = found.domain(None, "p1") if isinstance(found, Permission) else found.domain()
    assert told.size >= 0


async def test_an_ask_of_a_tool_call_that_is_not_told_can_only_be_rejected() -> None:
    silent = {**ANSWER, "content": [{**TOOL, "id": "another"}]}
    fake = FakeOpenCode2(running(asks=[ASKED]) | {"GET /api/session/ses_1/message/msg_2": {"data": silent}})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        (ask,) = (await agent.runs()).asks
    assert ask.size > MAX_ASK_SHOWN


async def test_what_something_else_than_a_tool_asks_for_is_shown_as_it_is() -> None:
    plain = {key: value for key, value in ASKED.items() if key != "source"} | {"message": "please"}
    fake = FakeOpenCode2(running(asks=[plain]))
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        (ask,) = (await agent.runs()).asks
    assert not isinstance(ask, Question)
    assert not ask.is_split
    assert ask.patterns == ("a",)
    assert ask.details == (("message", "please"),)
    assert ask.size < MAX_ASK_SHOWN


async def test_always_is_refused_where_the_project_is_not_told() -> None:
    answers = running(asks=[ASKED]) | {"GET /api/session/ses_1": {"data": {**SESSION, "projectID": None}}}
    fake = FakeOpenCode2(answers | {"GET /api/session/ses_1/message/msg_2": {"data": ANSWER}})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        (ask,) = (await agent.runs()).asks
    assert not isinstance(ask, Question)
    assert "does not tell of which project" in ask.always_refused


@pytest.mark.parametrize("odd", [None, [], 7, {"data": None}, {"data": []}, {"data": "running"}])
async def test_a_list_of_what_runs_that_is_none_is_an_error(odd: object) -> None:
    async with FakeOpenCode2({"GET /api/session/active": odd}) as fake, opencode2_behind(fake.url, GUARD) as agent:
        with pytest.raises(BadAnswer):
            await agent.runs()


async def test_ids_that_cannot_be_are_left_out_and_never_asked_for() -> None:
    odd: Json = {"../../shell": {}, "ses 1": {}, "": {}, "ses_" + "x" * 100: {}, "ses_1?x=1": {}}
    fake = FakeOpenCode2(running() | {"GET /api/session/active": {"data": {**odd, "ses_1": {}}}})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        assert set((await agent.runs()).statuses) == {"ses_1"}
    assert len(fake.asked) == 3


async def test_asks_that_cannot_be_fetched_hide_no_others() -> None:
    both: Json = {"ses_1": {}, "ses_2": {}, "ses_3": {}}
    answers = running(asks=[ASKED]) | {
        "GET /api/session/active": {"data": both},
        "GET /api/session/ses_1/message/msg_2": {"data": ANSWER},
        "GET /api/session/ses_2/permission": (500, ""),
        "GET /api/session/ses_3/permission": (200, " " * (9 << 20)),
    }
    async with FakeOpenCode2(answers) as fake, opencode2_behind(fake.url, GUARD) as agent:
        runs = await agent.runs()
    assert set(runs.statuses) == set(both)
    assert [ask.id for ask in runs.asks] == ["per_1"]


async def test_what_runs_and_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "MAX_RUNNING", 7)
    monkeypatch.setattr(agent_module, "MAX_ASKS", 5)
    forms = [{**FORM, "id": f"frm_{number}"} for number in range(9)]
    active: Json = {"ses_1": {}, **{f"ses_{number}": {} for number in range(2, 20)}}
    fake = FakeOpenCode2(running(forms=forms) | {"GET /api/session/active": {"data": active}})
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        runs = await agent.runs()
    assert len(runs.statuses) == 7
    assert len(runs.asks) == 5


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "MAX_INPUTS", 3)
    monkeypatch.setattr(records_module, "MAX_INPUT_CHARACTERS", 1_000)
    monkeypatch.setattr(records_module, "MAX_SESSIONS", 3)
    async with FakeOpenCode2() as fake, opencode2_behind(fake.url, GUARD) as agent:
        records = agent._records
        for number in range(9):
            records.note_input("msg_1", f"call_{number}", {"command": "x" * 300})
            records.note(wire.Session.model_validate({**SESSION, "id": f"ses_{number}"}).domain())
        assert len(records._inputs) == 3
        records.note_input("msg_1", "call_9", {"command": "x" * 5_000})
        assert len(records._inputs) == 0
        assert records._size == 0
        assert records.known("ses_8") is not None
        assert records.known("ses_0") is None


@pytest.mark.parametrize(
    "answer",
    [
        {"data": {"id": "msg_9", "payload": {"text": "hello"}}},
        {"data": {"id": "msg_1", "payload": {"text": "another"}}},
    ],
)
async def test_a_prompt_that_is_answered_as_another_is_refused(answer: object) -> None:
    async with (
        FakeOpenCode2({"POST /api/session/ses_1/prompt": answer}) as fake,
        opencode2_behind(fake.url, GUARD) as agent,
    ):
        with pytest.raises(Refused):
            await agent.prompt(Prompt("ses_1", "msg_1", "hello"))


async def test_a_directory_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "POST /api/session": {"data": SESSION},
        "GET /api/session/ses_1/permission": {"data": []},
        "POST /api/session/ses_1/prompt": (500, ""),
    }
    async with FakeOpenCode2(answers) as fake, opencode2_behind(fake.url, GUARD) as agent:
        with pytest.raises(Rejected, match="the directory of that session is gone"):
            await agent.prompt(Prompt("ses_1", "msg_1", "hello"))
        await agent.create(HOME)
        with pytest.raises(Rejected, match=f"{HOME}.*is gone"):
            await agent.prompt(Prompt("ses_1", "msg_1", "hello"))
        fake.answers["POST /api/session/ses_1/prompt"] = (500, json.dumps({"message": "the disk is full"}))
        with pytest.raises(Rejected, match="the disk is full"):
            await agent.prompt(Prompt("ses_1", "msg_1", "hello"))


async def test_a_form_of_another_place_is_not_answered() -> None:
    fake = FakeOpenCode2(running(forms=[{**FORM, "id": "frm_2"}]))
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        with pytest.raises(NotFound):
            await agent.answer(Question(id="frm_1", session_id="ses_1"), [["r"]])
    assert [call for call, _ in fake.asked if call.startswith("POST")] == []


async def test_a_form_that_only_the_machine_itself_can_answer_is_declined_or_left() -> None:
    field = {"key": "q0", "type": "external", "title": "Log in", "url": "https://login.example"}
    fake = FakeOpenCode2(
        running(forms=[{**FORM, "fields": [field]}]) | {"DELETE /api/session/ses_1/form/frm_1": (204, "")}
    )
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        (ask,) = (await agent.runs()).asks
        assert isinstance(ask, Question)
        assert "https://login.example" in ask.items[0].question
        with pytest.raises(Refused, match="on the machine itself"):
            await agent.answer(ask, [["done"]])
        await agent.decline(ask)
    assert [call for call, _ in fake.asked if call.startswith("POST")] == []


async def test_opened_directories_are_looked_for_on_further_pages_and_then_one_by_one() -> None:
    guard = guard_document({f"/srv/{number}": f"laptop-{number}" for number in range(9)})
    sessions = [{**SESSION, "id": f"ses_{n}", "location": {"directory": f"/srv/{n}"}} for n in range(9)]
    first, second, last = sessions[:4], sessions[4:6], sessions[6:]
    fake = FakeOpenCode2({"GET /api/session/active": {"data": {}}})
    listed = "GET /api/session?limit=200&parentID=null"
    fake.answers[listed] = {"data": first, "cursor": {"next": "a"}}
    fake.answers["GET /api/session?limit=200&cursor=a&parentID=null"] = {"data": second, "cursor": {"next": "b"}}
    fake.answers["GET /api/session?limit=200&cursor=b&parentID=null"] = {"data": [], "cursor": {"next": None}}
    async with fake, opencode2_behind(fake.url, guard) as agent:
        snapshot = await agent.snapshot()
        assert {session.id for session in snapshot.sessions} == {"ses_0", "ses_1", "ses_2", "ses_3", "ses_4", "ses_5"}
        assert [place.directory for place in snapshot.workplaces] == [f"/srv/{number}" for number in range(9)]
        assert len(fake.bodies("GET /api/session")) == 3
        # One that never comes to its end: what it does not show is asked for.
        for cursor in "bcd":
            fake.answers[f"GET /api/session?limit=200&cursor={cursor}&parentID=null"] = {
                "data": [],
                "cursor": {"next": chr(ord(cursor) + 1)},
            }
        for number, session in enumerate(last, 6):
            fake.answers[f"GET /api/session?directory=/srv/{number}&limit=20&parentID=null"] = {"data": [session]}
        again = await agent.snapshot()
    assert {session.id for session in again.sessions} == {session["id"] for session in sessions}


async def test_a_directory_or_two_are_asked_for_their_sessions_at_once() -> None:
    fake = FakeOpenCode2(
        {
            "GET /api/session/active": {"data": {}},
            "GET /api/session?limit=200&parentID=null": {"data": [], "cursor": {"next": "a"}},
            f"GET /api/session?directory={HOME}&limit=20&parentID=null": {"data": [SESSION]},
        }
    )
    async with fake, opencode2_behind(fake.url, GUARD) as agent:
        assert [session.id for session in (await agent.snapshot()).sessions] == ["ses_1"]
    assert len(fake.bodies("GET /api/session")) == 2
