"""A page of messages that the guard thinned shows the same as the whole one, and tells the same of turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_connected.guard import thinned1, thinned2
from opencode_connected.guard.thinning import compact, kept
from opencode_fleet.agents.opencode1 import wire as wire1
from opencode_fleet.agents.opencode2 import wire as wire2
from opencode_fleet.agents.opencode2.conversation import messages_of, turn_of
from opencode_mcp.views.conversations import message_rows, session_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.model import Message

GOLDEN = Path(__file__).parent / "golden"
SESSION = "ses_0123456789"
Entry = dict[str, Any]


def recorded(generation: int) -> list[Entry]:
    """Return a real conversation, oldest first."""
    return [json.loads(line) for line in (GOLDEN / f"messages-{generation}.jsonl").read_text().splitlines()]


def thinned(generation: int, entries: Sequence[Entry]) -> list[Entry]:
    """Return a page as it comes out of the guard, oldest first."""
    if generation == 1:
        page = json.loads(compact(kept(list(entries), thinned1.MESSAGES)))
        assert isinstance(page, list)
        return page
    told = json.loads(compact(kept({"data": list(entries), "cursor": {"next": None}}, thinned2.MESSAGES)))
    assert told["cursor"] == {"next": None}
    page = told["data"]
    assert isinstance(page, list)
    return page


def read(generation: int, entries: Sequence[Entry]) -> list[Message]:
    if generation == 1:
        return [wire1.Message.model_validate(entry).domain() for entry in entries]
    return messages_of([wire2.Message.model_validate(entry) for entry in entries], SESSION)


def shown(generation: int, entries: Sequence[Entry]) -> list[object]:
    """Return all that a person may see of a page, and what decides on its turns."""
    messages = read(generation, entries)
    said: list[object] = [
        (
            each.id,
            each.role,
            each.ended,
            each.answers,
            each.completed,
            each.error,
            each.retry,
            each.is_summary,
            each.text,
        )
        for each in messages
    ]
    said += [[(part.id, part.kind, part.changed) for part in each.parts] for each in messages]
    for busy in (False, True):
        said.append(message_rows(messages, {}, 200_000, busy=busy))
        said.append(session_problem(messages, busy=busy, pick_up=""))
    if generation == 2:
        records = [wire2.Message.model_validate(entry) for entry in entries]
        turns = [turn_of(records, SESSION, entry.id) for entry in records if entry.type == "user"]
        said += [(turn.problem, turn.is_interrupted, [a.text for a in turn.answers]) for turn in turns if turn]
    return said


@pytest.mark.parametrize("generation", [1, 2])
def test_a_recorded_conversation_shows_the_same_and_is_smaller(generation: int) -> None:
    entries = recorded(generation)
    page = thinned(generation, entries)
    assert shown(generation, page) == shown(generation, entries)
    assert len(compact(page)) < len(compact(entries)) * 0.9


def tool(generation: int, status: str, output: str, argument: str, error: str) -> Entry:
    if generation == 1:
        state: Entry = {"status": status, "input": {"content": "x", "command": argument}, "metadata": {"a": output}}
        state |= {"output": output, "error": error, "time": {"start": 1, "end": 5}}
        part = {"id": "prt_1", "messageID": "msg_1", "sessionID": SESSION, "type": "tool", "tool": "bash"}
        return {**part, "state": state}
    contents = [
        {"type": "text", "text": output},
        {"type": "file", "uri": "data:"},
        {"type": "text", "text": argument},
    ]
    state = {"status": status, "input": {"content": "x", "path": argument}, "content": contents, "metadata": {}}
    state |= {"error": {"type": "x", "message": error}} if error else {}
    return {"type": "tool", "id": "call_1", "name": "shell", "state": state, "time": {"created": 1, "completed": 5}}


def message(generation: int, role: str, parts: list[Entry], **more: object) -> Entry:
    if generation == 1:
        info = {"id": "msg_1", "sessionID": SESSION, "role": role, "time": {"created": 1}, **more}
        return {"info": info, "parts": parts}
    return {"id": "msg_1", "type": role, "time": {"created": 1}, "content": parts, **more}


WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]) | st.sampled_from(" \n"), max_size=30)
LONG = st.builds(lambda text, times: text * times, WORDS.filter(str.strip), st.integers(0, 2_000))


@settings(deadline=None)
@given(st.sampled_from([1, 2]), st.sampled_from(["pending", "running", "completed", "error"]), LONG, LONG, LONG)
def test_what_is_long_is_cut_where_nobody_sees_it(
    generation: int, status: str, output: str, argument: str, error: str
) -> None:
    entries = [message(generation, "assistant", [tool(generation, status, output, argument, error)])]
    page = thinned(generation, entries)
    assert shown(generation, page) == shown(generation, entries)
    assert len(compact(page)) < 40_000


PARTS: list[Entry] = [
    {"type": "text", "text": "hello", "id": "prt_1"},
    {"type": "text", "text": "from OpenCode", "id": "prt_2", "synthetic": True},
    {"type": "reasoning", "text": "hm", "id": "prt_3", "time": {"start": 3, "created": 4}},
    {"type": "file", "filename": "a", "url": "data:", "id": "prt_4"},
    {"type": "compaction", "auto": True, "id": "prt_5"},
    {"type": "patch", "files": ["a"], "id": "prt_6"},
]
MORE: list[Entry] = [
    {},
    {"summary": True},
    {"mode": "compaction", "finish": "stop"},
    {"error": {"name": "APIError", "data": {"message": "no"}, "type": "provider", "message": "no"}},
    {"text": "said", "files": [{"name": "a.png", "uri": "data:"}], "agent": "plan"},
    {"model": {"id": "b", "providerID": "a", "modelID": "b"}, "retry": {"attempt": 2, "error": {"type": "x"}}},
    {"outcome": "failed", "description": "after a restart", "command": "ls", "name": "skill"},
]
ROLES = ["user", "assistant", "synthetic", "idle", "shell", "compaction", "agent-switched", "model-switched", "skill"]


@settings(deadline=None)
@given(
    st.sampled_from([1, 2]),
    st.lists(
        st.tuples(st.sampled_from(ROLES), st.lists(st.sampled_from(PARTS)), st.lists(st.sampled_from(MORE))),
        max_size=5,
    ),
)
def test_messages_of_every_kind_show_the_same(
    generation: int, kinds: list[tuple[str, list[Entry], list[Entry]]]
) -> None:
    entries = [
        message(generation, role, parts, **{key: value for each in more for key, value in each.items()})
        for role, parts, more in kinds
    ]
    page = thinned(generation, entries)
    assert shown(generation, page) == shown(generation, entries)
    whole, thin = read(generation, entries), read(generation, page)
    assert [(each.agent, each.model) for each in thin] == [(each.agent, each.model) for each in whole]


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_pages_of_another_shape_break_nothing(value: object) -> None:
    for odd in (value, [value], {"data": value}, {"data": [value]}, [{"info": value, "parts": [value]}]):
        for shape in (thinned1.MESSAGES, thinned2.MESSAGES):
            json.loads(compact(kept(odd, shape)))
