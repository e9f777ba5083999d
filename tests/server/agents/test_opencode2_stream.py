"""The event stream of an OpenCode 2: what it says, and that it may be anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_fleet.agents.guard import GUARD_CHANGED
from opencode_fleet.agents.opencode2.decoder import Decoder
from opencode_fleet.agents.opencode2.operations import Operations
from opencode_fleet.agents.opencode2.records import Calls, Records
from opencode_fleet.errors import BadAnswer, InstanceError
from opencode_fleet.events import AskOpened, SessionChanged, StatusChanged, TextChanged, ToolChanged
from opencode_fleet.model import Question
from support.fleet.altered import altered, anything
from support.opencodes.connected import client_for, opencode2_behind
from support.opencodes.fake_opencode2 import (
    ANSWER,
    CONNECTED,
    EVENT,
    EVENTS,
    GUARD,
    SESSION,
    TOOL_CALL,
    FakeOpenCode2,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_fleet.events import Event


@given(st.sampled_from(EVENTS), anything, st.integers(1, 20))
async def test_an_event_with_anything_in_it_is_decoded_or_says_nothing(
    event: object, odd: object, place: int
) -> None:
    client = client_for("http://127.0.0.1:9")  # nobody is asked
    decoder = Decoder(Records(Calls(client, Operations.built_in("2.0.15"), GUARD)))
    changed, _ = altered(event, odd, place)
    try:
        for each in [EVENT["session.created"], *TOOL_CALL, changed]:
            for told in await decoder.decode(each):
                assert told.session_id
    except InstanceError:
        pass  # what it names would have to be fetched
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    "event", [[], 7, True, {}, {"type": 7}, {"type": "x" * 200}, {"type": "session.step.started", "data": []}]
)
async def test_an_event_that_is_none_says_nothing(event: object) -> None:
    async with FakeOpenCode2(events=[CONNECTED, event, EVENT["session.execution.started"]]) as fake:
        told = [each async for each in _told(fake)]
    assert [type(each) for each in told] == [StatusChanged]


async def test_a_change_of_the_guards_and_what_is_no_event_are_gaps() -> None:
    frames = [
        CONNECTED,
        GUARD_CHANGED,
        ": heartbeat\n\n",
        "data: {broken\n\n",
        "data: null\n\n",
        EVENT["session.execution.started"],
    ]
    async with FakeOpenCode2(events=frames) as fake:
        told = [each async for each in _told(fake)]
    assert [each is None for each in told] == [True, True, True, False]


async def test_a_stream_that_does_not_begin_as_one_is_none() -> None:
    async with FakeOpenCode2(events=[EVENT["session.execution.started"]]) as fake:
        with pytest.raises(BadAnswer, match="no proper event stream"):
            _ = [each async for each in _told(fake)]


async def test_a_piece_of_a_text_is_told_only_if_its_beginning_was() -> None:
    pieces = [EVENT["session.text.delta"], EVENT["session.text.ended"]]
    async with FakeOpenCode2(events=[CONNECTED, *pieces, EVENT["session.text.started"], *pieces]) as fake:
        told = [each async for each in _told(fake)]
    assert [each.is_whole for each in told if isinstance(each, TextChanged)] == [True, False, True]


async def test_an_ask_in_the_stream_is_told_whole_from_the_tool_call_or_from_the_record() -> None:
    asked = EVENT["permission.asked"]
    answers = {"GET /api/session/ses_1": {"data": SESSION}, "GET /api/session/ses_1/message/msg_2": {"data": ANSWER}}
    async with FakeOpenCode2(answers, events=[CONNECTED, *TOOL_CALL, asked]) as fake:
        (heard,) = [each.ask async for each in _told(fake) if isinstance(each, AskOpened)]
        assert "GET /api/session/ses_1/message/msg_2" not in [call for call, _ in fake.asked]
    async with FakeOpenCode2(answers, events=[CONNECTED, *TOOL_CALL, EVENT["session.tool.failed"], asked]) as fake:
        (fetched,) = [each.ask async for each in _told(fake) if isinstance(each, AskOpened)]
        assert "GET /api/session/ses_1/message/msg_2" in [call for call, _ in fake.asked]
    assert heard == fetched
    assert not isinstance(heard, Question)
    assert heard.details == (("command", "a; b"),)


@pytest.mark.parametrize(
    ("answer", "gap"),
    [
        ((404, "{}"), []),  # the ask is gone with it
        ((500, '{"message": "no"}'), [None]),
        ((200, "{broken"), [None]),
    ],
)
async def test_an_ask_whose_record_cannot_be_fetched_is_not_shown(answer: tuple[int, str], gap: list[None]) -> None:
    answers = {"GET /api/session/ses_1": {"data": SESSION}, "GET /api/session/ses_1/message/msg_2": answer}
    async with FakeOpenCode2(answers, events=[CONNECTED, EVENT["permission.asked"]]) as fake:
        assert [each async for each in _told(fake)] == gap


async def test_a_session_that_changes_is_fetched_and_one_that_is_gone_says_nothing() -> None:
    renamed = {"type": "session.renamed", "data": {"sessionID": "ses_1", "title": "not believed"}}
    gone = {"type": "session.renamed", "data": {"sessionID": "ses_2", "title": "gone"}}
    answers = {"GET /api/session/ses_1": {"data": {**SESSION, "title": "as it is"}}}
    async with FakeOpenCode2(answers, events=[CONNECTED, gone, renamed]) as fake:
        told = [each async for each in _told(fake)]
    assert [each.session.title for each in told if isinstance(each, SessionChanged)] == ["as it is"]
    assert len(told) == 1


async def test_a_tool_that_was_not_heard_to_begin_is_told_by_what_it_is_about() -> None:
    async with FakeOpenCode2(events=[CONNECTED, EVENT["session.tool.called"], EVENT["session.tool.failed"]]) as fake:
        told = [each async for each in _told(fake)]
    assert [each.call for each in told if isinstance(each, ToolChanged)] == ["a; b", ""]


async def _told(fake: FakeOpenCode2) -> AsyncIterator[Event | None]:
    async with opencode2_behind(fake.url, GUARD) as agent, agent.events() as events:
        async for event in events:
            yield event


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 10**30, "7", None])
async def test_a_number_that_cannot_be_counts_as_none(number: object) -> None:
    data = {"sessionID": "ses_1", "attempt": number, "error": {"type": "a", "message": "b"}}
    retry = {"type": "session.retry.scheduled", "data": data}
    async with FakeOpenCode2(events=[CONNECTED, retry]) as fake:
        (told,) = [each async for each in _told(fake)]
    assert isinstance(told, StatusChanged)
    assert told.status is not None
    assert told.status.attempt == 0
