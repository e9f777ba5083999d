"""What counts as an answer to an agent's ask, and the ids under which messages are sent."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_fleet.answers import permission_decision, question_answers
from opencode_fleet.errors import Refused
from opencode_fleet.model import Option, Question, QuestionItem
from opencode_fleet.prompt_ids import new_prompt_id


def question(*labels: str, multiple: bool = False, count: int = 1) -> Question:
    options = tuple(Option(label) for label in labels or ("Red", "Dark Blue"))
    item = QuestionItem(question="which?", multiple=multiple, options=options)
    return Question(id="que_1", session_id="ses_1", items=(item,) * count)


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


LABELS = ("Yes", "Yes, and push", "Yes, and push, then deploy", "No")


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        ("yes, and push", ["Yes, and push"]),
        ("No, Yes, and push", ["No", "Yes, and push"]),
        ("yes, and push,no", ["Yes, and push", "No"]),
        ("Yes, and push, then deploy, Yes", ["Yes, and push, then deploy", "Yes"]),
        ("Yes,Yes, and push", ["Yes", "Yes, and push"]),
        ("Yes, and pull", ["Yes, and pull"]),
    ],
)
def test_several_labels_are_told_apart_also_where_they_have_commas_themselves(answer: str, sent: list[str]) -> None:
    assert question_answers(question(*LABELS, multiple=True), answer) == [sent]


@given(st.lists(st.sampled_from(LABELS), min_size=1, unique=True))
def test_whatever_labels_are_chosen_they_are_what_is_sent(chosen: list[str]) -> None:
    (sent,) = question_answers(question(*LABELS, multiple=True), ", ".join(chosen))
    assert ", ".join(sent) == ", ".join(chosen)


def test_the_agent_is_sent_an_option_s_value_and_the_person_says_its_label() -> None:
    item = QuestionItem(question="which?", options=(Option("Red", value="#f00"), Option("Blue")), multiple=True)
    ask = Question(id="que_1", session_id="ses_1", items=(item,))
    assert question_answers(ask, "red, blue") == [["#f00", "Blue"]]


@pytest.mark.parametrize("answer", ["", " ", [], ["red", ""], ["red"], ["red", "red", "red"]])
def test_two_questions_want_two_answers(answer: str | list[str]) -> None:
    with pytest.raises(Refused, match="wants 2 answer"):
        question_answers(question(count=2), answer)


def test_ids_have_opencodes_form_and_none_comes_twice() -> None:
    ids = [new_prompt_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch(r"msg_[0-9a-f]{12}[0-9A-Za-z]{14}", each) for each in ids)
