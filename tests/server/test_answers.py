"""What counts as an answer to an agent's ask, and the ids under which messages are sent."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_fleet.answers import permission_decision, question_answers
from opencode_fleet.drive import _new_id
from opencode_fleet.errors import Refused
from opencode_fleet.wire import Question


def question(*, multiple: bool = False, count: int = 1) -> Question:
    item = {"question": "which?", "multiple": multiple, "options": [{"label": "Red"}, {"label": "Dark Blue"}]}
    return Question.model_validate({"id": "que_1", "sessionID": "ses_1", "questions": [item] * count})


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        ("once", ("once", None)),
        (" Always\n", ("always", None)),
        ("reject", ("reject", None)),
        ("Reject:", ("reject", None)),
        ("reject: because: of that", ("reject", "because: of that")),
        (["reject: why"], ("reject", "why")),
    ],
)
def test_a_permission_is_settled_by_its_three_words(
    answer: str | list[str], decision: tuple[str, str | None]
) -> None:
    assert permission_decision(answer) == decision


@pytest.mark.parametrize("answer", ["yes", "once: but carefully", "always: all of it", "once once", "rejected", ""])
def test_nothing_near_to_a_word_is_taken_for_it(answer: str) -> None:
    with pytest.raises(Refused, match="nothing was settled"):
        permission_decision(answer)


@given(st.text() | st.lists(st.text()))
def test_nothing_else_settles_a_permission(answer: str | list[str]) -> None:
    text = answer if isinstance(answer, str) else " ".join(answer)
    if text.strip().lower() in {"once", "always"} or text.strip().lower().startswith("reject"):
        return
    with pytest.raises(Refused, match="nothing was settled"):
        permission_decision(answer)


@pytest.mark.parametrize(
    ("answer", "multiple", "sent"),
    [
        ("red", False, [["Red"]]),
        ("dark blue", False, [["Dark Blue"]]),
        ("Green, please", False, [["Green, please"]]),
        ("red, dark blue", False, [["red, dark blue"]]),
        ("red, dark blue", True, [["Red", "Dark Blue"]]),
        ("red, green", True, [["red, green"]]),
        (["red"], True, [["Red"]]),
    ],
)
def test_labels_are_recognised_and_everything_else_is_the_persons_own_text(
    answer: str | list[str], multiple: bool, sent: list[list[str]]
) -> None:
    assert question_answers(question(multiple=multiple), answer) == sent


@pytest.mark.parametrize("answer", ["", " ", [], ["red", ""], ["red"], ["red", "red", "red"]])
def test_two_questions_want_two_answers(answer: str | list[str]) -> None:
    with pytest.raises(Refused, match="wants 2 answer"):
        question_answers(question(count=2), answer)


def test_ids_have_opencodes_form_and_none_comes_twice() -> None:
    ids = [_new_id("msg") for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch(r"msg_[0-9a-f]{12}[0-9A-Za-z]{14}", each) for each in ids)
