"""Thinned events mean the same to the server as all of them: at every moment, in whatever order they come."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.fake_calls import fake_records, idle_client
from opencode_connected.guard.stream import EventFilter
from opencode_connected.guard.thinned1 import Thinner1
from opencode_connected.guard.thinned2 import Thinner2
from opencode_fleet.agents.opencode1.decoder import Decoder as Decoder1
from opencode_fleet.agents.opencode2.decoder import Decoder as Decoder2
from opencode_fleet.events import TextChanged, ToolChanged
from opencode_fleet.model import Runs, Status
from opencode_fleet.state import DirectoryState
from opencode_fleet.turn import Heard

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opencode_connected.guard.thinning import Thinner

GOLDEN = Path(__file__).parent / "golden"
Event = dict[str, Any]


def recorded(generation: int) -> list[Event]:
    """Return what a real OpenCode told of some turns: with output, edits, a subagent, a retry, an interruption."""
    return [json.loads(line) for line in (GOLDEN / f"events-{generation}.jsonl").read_text().splitlines()]


def of(kind: str, **data: object) -> Event:
    """Return an event of either generation: each reads its own half."""
    return {"id": "evt_1", "type": kind, "properties": data, "data": data, "created": 1}


_SESSION = "ses_0123456789"
_ASK = {"id": "per_1", "sessionID": _SESSION, "tool": {"messageID": "msg_1"}}
_FORM = {"id": "frm_1", "sessionID": _SESSION, "fields": [{"key": "q0", "type": "string", "description": "Which?"}]}
_PROBLEM = {"name": "APIError", "data": {"message": "no", "responseBody": "x" * 3000}, "type": "x", "message": "no"}
UNRECORDED = [
    of("permission.asked", permission="edit", patterns=["a"], metadata={"diff": "+a" * 500}, action="edit", **_ASK),
    of("permission.replied", sessionID=_SESSION, requestID="per_1", reply="once"),
    of("question.asked", id="que_1", sessionID=_SESSION, questions=[{"question": "Which?", "options": []}]),
    of("question.replied", sessionID=_SESSION, requestID="que_1", answers=[["blue"]]),
    of("question.rejected", sessionID=_SESSION, requestID="que_1"),
    of("form.created", sessionID=_SESSION, form=_FORM),
    of("form.replied", sessionID=_SESSION, id="frm_1", answer={"q0": "blue"}),
    of("form.cancelled", sessionID=_SESSION, id="frm_1"),
    of("session.error", sessionID=_SESSION, error=_PROBLEM),
    of("session.execution.failed", sessionID=_SESSION, error=_PROBLEM),
    of("session.deleted", sessionID=_SESSION, info={"id": _SESSION}),
    of("session.status", sessionID=_SESSION, status={"type": "retry", "attempt": 2, "message": "busy"}),
    of("message.updated", info={"id": "msg_9", "sessionID": _SESSION, "role": "assistant", "summary": True}),
    of(
        "message.part.updated",
        part={"id": "prt_9", "sessionID": _SESSION, "type": "text", "text": "x", "synthetic": True},
    ),
    of("session.moved", sessionID=_SESSION, location={"directory": "/home/ann/web"}),
]
RECORDED = {generation: [*recorded(generation), *UNRECORDED] for generation in (1, 2)}


def thinner_of(generation: int) -> Thinner:
    return Thinner1() if generation == 1 else Thinner2()


def framed(event: object) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


async def told(events: EventFilter, event: object) -> list[Event]:
    """Return what goes through the tunnel of an event."""
    passed = await events.feed(framed(event))
    return [json.loads(frame.removeprefix(b"data: ")) for frame in passed.split(b"\n\n") if frame]


SELDOM = {"session.forked", "session.agent.selected", "session.model.selected"}
"""Kinds of events that are told with nothing but their session, and were not recorded."""


@dataclass
class Reader:
    """The server's end of a stream: what it knows after the events so far."""

    generation: int
    state: DirectoryState = field(default_factory=DirectoryState)
    heard: dict[str, Heard] = field(default_factory=dict)
    said: list[object] = field(default_factory=list)
    """All events but those of texts and calls, which may be told in fewer words."""

    def __post_init__(self) -> None:
        self.client = idle_client()
        self.records = fake_records(self.client)
        self.decoder1 = Decoder1()
        self.decoder2 = Decoder2(self.records)
        self.state.reset("/home/ann/api", Runs(statuses={}, asks=[]), [])

    async def take(self, events: Iterable[Event]) -> None:
        for raw in events:
            for event in self.decoder1.decode(raw) if self.generation == 1 else await self.decoder2.decode(raw):
                self.state.apply(event)
                if not isinstance(event, TextChanged | ToolChanged):
                    self.said.append(event)
                # Each session's turn is followed, begun by whatever prompt came first.
                if event.session_id not in self.heard:
                    self.heard[event.session_id] = Heard(event.session_id, "", running=True)
                self.heard[event.session_id].take(event)

    def knows(self) -> list[object]:
        """Return all that can be told from what it heard, but for the calls under way."""
        state = self.state
        turns = {
            key: (one.began, one.error, sorted(one.broken), one.unsent, one.answer())
            for key, one in sorted(self.heard.items())
        }
        texts = {key: dict(state.live(key).parts) for key in state.statuses}
        return [
            self.said,
            dict(state.statuses),
            dict(state.sessions),
            state.pending_asks(),
            list(state.settled_how.items()),
            texts,
            turns,
        ]

    def calls(self) -> dict[str, str]:
        return {key: self.state.live(key).tool for key in self.state.statuses}


async def assert_nothing_is_lost(generation: int, events: list[Event], *, is_exact: bool) -> int:
    """Check that who hears the thinned events always knows what they know who hear all; return the bytes saved."""
    whole, thin = Reader(generation), Reader(generation)
    stream = EventFilter(None, thinner_of(generation))
    saved = 0
    try:
        for event in events:
            passed = await told(stream, event)
            saved += len(framed(event)) - sum(len(framed(each)) for each in passed)
            await whole.take([event])
            await thin.take(passed)
            assert thin.knows() == whole.knows()
            if is_exact:
                assert thin.calls() == whole.calls()
            # Of several calls at once any may be the one that is named.
            assert {key for key, call in thin.calls().items() if call} == {
                key for key, call in whole.calls().items() if call
            }
    finally:
        await whole.client.aclose()
        await thin.client.aclose()
    return saved


@pytest.mark.parametrize("generation", [1, 2])
async def test_recorded_turns_are_known_as_well_from_the_thinned_events(generation: int) -> None:
    events = RECORDED[generation]
    kinds = {event["type"] for event in events}
    assert thinner_of(generation).kinds - kinds <= SELDOM
    saved = await assert_nothing_is_lost(generation, events, is_exact=generation == 2)
    assert saved > sum(len(framed(event)) for event in events) * 0.4


@pytest.mark.parametrize("generation", [1, 2])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
async def test_events_in_whatever_order_are_known_as_well(generation: int, data: st.DataObject) -> None:
    events = data.draw(st.lists(st.sampled_from(RECORDED[generation]), max_size=60))
    await assert_nothing_is_lost(generation, events, is_exact=generation == 2)


def test_whatever_the_server_reads_is_told() -> None:
    assert set(Decoder1.kinds()) == thinner_of(1).kinds
    assert set(Decoder2.kinds()) == thinner_of(2).kinds


def tool(status: str, output: str = "", *, part: str = "prt_1", session: str = _SESSION, title: str = "") -> Event:
    state = {"status": status, "input": {"command": "make"}, "title": title, "metadata": {"output": output}}
    ids = {"id": part, "messageID": "msg_2", "sessionID": session}
    return of("message.part.updated", part={**ids, "type": "tool", "tool": "bash", "state": state})


async def passed(events: Iterable[Event]) -> list[Event]:
    """Return what goes through the tunnel of OpenCode 1's events."""
    stream = EventFilter(None, Thinner1())
    return [each for event in events for each in await told(stream, event)]


def statuses(events: Iterable[Event]) -> list[tuple[str, str]]:
    parts = [event["properties"]["part"] for event in events]
    return [(part["id"], part["state"]["status"]) for part in parts]


async def test_a_running_tool_is_told_once_and_its_end_always() -> None:
    noise = [tool("running", "line\n" * number) for number in range(50)]
    assert statuses(await passed([tool("pending"), *noise, tool("completed", "all")])) == [
        ("prt_1", "pending"),
        ("prt_1", "running"),
        ("prt_1", "completed"),
    ]
    renamed = await passed([*noise, tool("running", title="make all"), *noise])
    assert [event["properties"]["part"]["state"].get("title") for event in renamed] == ["", "make all", ""]


async def test_what_still_runs_is_told_again_when_another_call_of_its_session_ends() -> None:
    first, second = tool("running", part="prt_1"), tool("running", part="prt_2")
    elsewhere = tool("running", part="prt_3", session="ses_other")
    events = [elsewhere, first, second, first, second, elsewhere, tool("completed", part="prt_2"), first, first]
    assert statuses(await passed([*events, elsewhere])) == [
        ("prt_3", "running"),
        ("prt_1", "running"),
        ("prt_2", "running"),
        ("prt_2", "completed"),
        ("prt_1", "running"),
    ]


async def test_what_runs_for_long_is_told_again_to_a_reader_who_forgot_it() -> None:
    now = 0.0
    stream, decoder, state = EventFilter(None, Thinner1(lambda: now)), Decoder1(), DirectoryState()
    runs = Runs(statuses={_SESSION: Status("busy")}, asks=[])

    async def hear(output: str) -> int:
        events = await told(stream, tool("running", output))
        for event in events:
            for each in decoder.decode(event):
                state.apply(each)
        return len(events)

    state.refresh(runs)
    assert await hear("") == 1
    # Its list of what runs was older than the turn, and the next one tells of the session, not of its call.
    state.refresh(Runs(statuses={}, asks=[]))
    state.refresh(runs)
    assert state.live(_SESSION).tool == ""
    times = []
    for number in range(25):
        now = float(number)
        times += [number] * await hear("line\n" * number)
    assert times == [10, 20]
    assert state.live(_SESSION).tool == "bash make"


def growing(words: list[str], **ids: str) -> list[Event]:
    """Return a text as OpenCode told it before 1.2: the whole of it with each word."""
    part = {"id": "prt_4", "messageID": "msg_3", "sessionID": _SESSION, "type": "text", **ids}
    texts = ["".join(words[: number + 1]) for number in range(len(words))]
    events = [of("message.part.updated", part={**part, "text": ""})]
    events += [
        of("message.part.updated", part={**part, "text": text}, delta=word)
        for text, word in zip(texts, words, strict=True)
    ]
    return [*events, of("message.part.updated", part={**part, "text": "".join(words).rstrip()})]


@given(st.lists(st.text(max_size=5), max_size=20), st.integers(0, 20))
async def test_a_text_that_comes_as_a_whole_with_each_word_is_told_by_what_is_new(words: list[str], gap: int) -> None:
    begun = of("message.updated", info={"id": "msg_3", "sessionID": _SESSION, "role": "assistant"})
    events = [of("session.status", sessionID=_SESSION, status={"type": "busy"}), begun, *growing(words)]
    await assert_nothing_is_lost(1, events, is_exact=True)
    # Of a text that was not told from its beginning, not without a gap, or in another way too, the whole is told.
    other = of("message.part.delta", sessionID=_SESSION, partID="prt_4", field="text", delta="x")
    await assert_nothing_is_lost(1, [*events[: 4 + gap], other, *events[4 + gap :]], is_exact=True)
    del events[2 + gap : 4 + gap]
    await assert_nothing_is_lost(1, events, is_exact=True)


@pytest.mark.parametrize("position", range(2, 6))
async def test_a_text_that_goes_on_after_its_session_was_idle_is_told_from_its_beginning(position: int) -> None:
    busy, idle = (of("session.status", sessionID=_SESSION, status={"type": kind}) for kind in ("busy", "idle"))
    begun = of("message.updated", info={"id": "msg_3", "sessionID": _SESSION, "role": "assistant"})
    events = [busy, begun, *growing(["one ", "two ", "three"])]
    await assert_nothing_is_lost(1, [*events[:position], idle, busy, *events[position:]], is_exact=True)


async def test_a_long_text_that_comes_as_a_whole_is_told_once() -> None:
    words = [f"word{number} " for number in range(500)]
    events = growing(words)
    sent = sum(len(framed(event)) for event in await passed(events))
    assert sent < sum(len(framed(event)) for event in events) / 5


async def test_what_a_person_wrote_and_reasoning_are_not_told() -> None:
    person = {"id": "msg_5", "sessionID": _SESSION, "role": "user", "summary": {"diffs": ["x" * 100]}}
    ids = {"sessionID": _SESSION, "messageID": "msg_6"}
    reasoning = {**ids, "id": "prt_6", "type": "reasoning", "text": ""}
    delta = of("message.part.delta", **ids, partID="prt_6", field="text", delta="hm")
    file = {**ids, "id": "prt_7", "type": "file", "url": "data:text/plain;base64,eA=="}
    events = [
        of("message.updated", info=person),
        of(
            "message.part.updated", part={**ids, "messageID": "msg_5", "id": "prt_5", "type": "text", "text": "do it"}
        ),
        of("message.part.updated", part=reasoning),
        delta,
        of("message.part.updated", part=file),
        of("file.edited", file="/home/ann/api/a"),
    ]
    told_of = await passed(events)
    assert [event["type"] for event in told_of] == ["message.updated"]
    assert told_of[0]["properties"]["info"] == {**person, "summary": {}}


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=5)
)
async def test_events_of_another_shape_break_nothing(value: object) -> None:
    for generation in (1, 2):
        for kind in sorted(thinner_of(generation).kinds):
            odd = [{"type": kind, "properties": value, "data": value}, of(kind, part=value, info=value, item=value)]
            await assert_nothing_is_lost(generation, odd, is_exact=True)


@pytest.mark.parametrize("odd", ["x" * 100_000, "", ["prt_1"], None, 7])
async def test_what_is_named_by_no_id_is_neither_told_nor_remembered(odd: object) -> None:
    ids = {"id": "prt_1", "messageID": "msg_1", "sessionID": _SESSION}
    bodies = (
        {"type": "text", "text": "x"},
        {"type": "reasoning", "text": "x"},
        {"type": "tool", "tool": "bash", "state": {"status": "running"}},
    )
    events = [of("message.part.updated", part={**ids, key: odd, **body}, delta="x") for key in ids for body in bodies]
    events += [of("message.updated", info={"id": odd, "sessionID": _SESSION, "role": "user"})]
    events += [of("message.part.delta", sessionID=_SESSION, partID=odd, field="text", delta="x")]
    thinner = Thinner1()
    assert [thinner.thin(event["type"], event) for event in events] == [None] * len(events)
    assert len(pickle.dumps(thinner)) == len(pickle.dumps(Thinner1()))


@pytest.mark.parametrize("generation", [1, 2])
async def test_an_event_that_is_nested_too_deeply_ends_no_stream(generation: int) -> None:
    stream = EventFilter(None, thinner_of(generation))
    kind, shown = ("session.status", "status") if generation == 1 else ("session.step.ended", "finish")
    for depth in range(900, 1_000):
        nested = "[" * depth + "]" * depth
        content = f'{{"sessionID": "{_SESSION}", "{shown}": {nested}, "x": 1}}'
        await stream.feed(f'data: {{"type": "{kind}", "properties": {content}, "data": {content}}}\n\n'.encode())
    after = of(kind, sessionID=_SESSION, status={"type": "idle"}, finish="stop")
    assert [event["type"] for event in await told(stream, after)] == [kind]


def test_what_is_remembered_of_a_stream_is_bounded() -> None:
    def size_after(count: int) -> int:
        thinner = Thinner1()
        for number in range(count):
            session, part = f"ses_{number}", f"prt_{number}"
            text = {"id": part, "messageID": "msg_a", "sessionID": session, "type": "text", "text": "x"}
            message = of("message.updated", info={"id": f"msg_{number}", "role": "user", "sessionID": session})
            many = [tool("running", part=part, session=session), tool("running", part=part)]
            for event in [*many, message, of("message.part.updated", part=text, delta="x")]:
                thinner.thin(event["type"], event)
        return len(pickle.dumps(thinner))

    assert size_after(20_000) < size_after(2_000) * 1.2
