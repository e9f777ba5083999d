"""Turns as OpenCode 2 stores them: which answers which is told by the order of the entries alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet.agents.opencode2 import wire
from opencode_fleet.agents.opencode2.conversation import messages_of, queued_turn, turn_of

if TYPE_CHECKING:
    from opencode_fleet.model import TurnRecord

STOPPED: dict[str, Any] = {"finish": "stop", "time": {"created": 2, "completed": 3}}
ABORTED: dict[str, Any] = {"finish": "error", "error": {"type": "aborted", "message": "Step interrupted"}}
DROPPED: dict[str, Any] = {
    "finish": "error",
    "error": {"type": "provider.invalid-output", "message": "ended early"},
    "retry": {"attempt": 2, "at": 5, "error": {"type": "provider.invalid-output", "message": "ended early"}},
    "time": {"created": 2, "completed": 3},
}


def entry(kind: str, number: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": f"msg_{kind}{number}", "type": kind, "time": {"created": number}, **more}


def answer(number: int = 1, text: str = "x", **more: Any) -> dict[str, Any]:
    return entry("assistant", number, content=[{"type": "text", "text": text}], **more)


def turn(*entries: dict[str, Any]) -> TurnRecord:
    found = turn_of([wire.Message.model_validate(each) for each in entries], "ses_1", "msg_user0")
    assert found is not None
    return found


def test_a_dropped_answer_that_is_asked_for_again_is_no_end() -> None:
    dropped = turn(entry("user"), answer(1, "some words", **DROPPED))
    assert [(each.error, each.ended) for each in dropped.answers] == [("", "")]
    assert dropped.answers[0].retry == "attempt 2: provider.invalid-output: ended early"
    assert not dropped.is_interrupted
    again = turn(
        entry("user"), answer(1, "some words", **DROPPED), entry("synthetic", 2), answer(3, "all", **STOPPED)
    )
    assert [each.ended for each in again.answers] == ["", "well"]
    assert not again.is_shared
    stopped = turn(entry("user"), answer(1, **DROPPED), entry("idle", 2, outcome="interrupted"))
    assert stopped.is_interrupted
    assert stopped.problem == ""
    failed = turn(entry("user"), answer(1, **DROPPED), entry("idle", 2, outcome="failed"))
    assert failed.problem == "attempt 2: provider.invalid-output: ended early"


def test_a_turn_is_broken_off_by_its_end_or_by_its_last_answer() -> None:
    assert turn(entry("user"), entry("idle", 1, outcome="interrupted")).is_interrupted
    assert turn(entry("user"), answer(**ABORTED)).is_interrupted
    assert not turn(entry("user"), answer(1, **ABORTED), entry("synthetic", 2), answer(3, **STOPPED)).is_interrupted
    assert not turn(entry("user"), entry("idle", 1, outcome="succeeded")).is_interrupted
    assert turn(entry("user"), entry("idle", 1, outcome="failed")).problem == "OpenCode gave no reason"


def test_what_wakes_an_idle_session_by_itself_belongs_to_the_turn_before() -> None:
    woken = turn(entry("user"), answer(1, "a", **STOPPED), entry("idle", 2), entry("synthetic", 3), answer(4, "b"))
    assert [each.text for each in woken.answers] == ["a", "b"]


@pytest.mark.parametrize(
    ("between", "is_shared"),
    [
        ([], True),
        ([answer(1, finish="tool-calls", time={"created": 1, "completed": 2})], True),
        ([answer(1, **STOPPED)], False),
        ([answer(1, finish="length", time={"created": 1, "completed": 2})], False),
        ([answer(1, **ABORTED)], False),
        ([entry("idle", 1, outcome="interrupted")], False),
    ],
)
def test_a_later_prompt_shares_the_answer_unless_the_turn_was_over(
    between: list[dict[str, Any]], is_shared: bool
) -> None:
    record = turn(entry("user"), *between, entry("user", 5), answer(6, "to both", **STOPPED))
    assert record.is_shared is is_shared
    assert ("to both" in [each.text for each in record.answers]) is is_shared


@pytest.mark.parametrize(
    ("newest", "interrupted", "problem"),
    [
        (None, False, False),
        (entry("idle", 9, outcome="interrupted"), False, False),
        (entry("idle", 11, outcome="interrupted"), True, False),
        (entry("idle", 11, outcome="failed"), False, True),
        (entry("assistant", 11), False, False),
    ],
)
def test_a_queued_prompt_that_an_end_came_after_is_not_waited_for(
    newest: dict[str, Any] | None, interrupted: bool, problem: bool
) -> None:
    item = wire.InboxItem.model_validate(entry("user", 10))
    record = queued_turn(item, wire.Message.model_validate(newest) if newest else None)
    assert record.is_queued
    assert record.is_interrupted is interrupted
    assert bool(record.problem) is problem


def test_what_opencode_itself_puts_in_is_a_note_in_words() -> None:
    entries = [
        entry("synthetic", 1, text="<system-reminder>long</system-reminder>", description="Continuing after restart"),
        entry("shell", 2, command="make"),
        entry("compaction", 3, status="completed", summary="what was done"),
        entry("compaction", 4, status="failed", error={"type": "a", "message": "b"}),
        entry("model-switched", 5, model={"id": "m", "providerID": "p"}),
        entry("skill", 6, name="tidy"),
        entry("system", 7, text="instructions"),
        entry("idle", 8, outcome="succeeded"),
        entry("of a later version", 9, text="odd"),
        entry("user", 10, text="", files=[{"name": "screen.png", "mime": "image/png"}]),
    ]
    told = messages_of(
        [wire.Message.model_validate({**each, "id": f"msg_{at}"}) for at, each in enumerate(entries)], "s"
    )
    assert [(each.role, each.text, each.is_summary) for each in told] == [
        ("note", "Continuing after restart", False),
        ("note", "a command was run by hand: make", False),
        ("note", "what was done", True),
        ("note", "the conversation could not be summarised", True),
        ("note", "the model is p/m from here on", False),
        ("note", "the skill tidy was loaded", False),
        ("user", "", False),
    ]
    assert [part.text for part in told[-1].parts] == ["screen.png"]
