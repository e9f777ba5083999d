"""What counts as a person's answer to what an agent asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_common.text import one_line
from opencode_fleet.errors import Refused

if TYPE_CHECKING:
    from opencode_fleet.wire import Question


def permission_decision(answer: str | list[str]) -> tuple[str, str | None]:
    """Return the decision (`once`, `always`, `reject`) and the reason of a rejection.

    Raises:
        Refused: it is none of them; nothing near to a yes is taken for one.
    """
    text = answer if isinstance(answer, str) else " ".join(answer)
    word, colon, reason = text.strip().partition(":")
    decision = word.strip().lower()
    if decision == "reject":
        return decision, reason.strip() or None
    if decision in {"once", "always"} and not colon:
        return decision, None
    raise Refused(
        f"{one_line(text, 80)!r} settles no permission: answer `once`, `always`, `reject` or `reject: why`; "
        "nothing was settled"
    )


def question_answers(ask: Question, answer: str | list[str]) -> list[list[str]]:
    """Return OpenCode's form of the answers: a list of labels (or one free text) for each of the ask's questions.

    Raises:
        Refused: an empty answer, or not one answer for each question.
    """
    answers = [answer] if isinstance(answer, str) else answer
    wanted = max(1, len(ask.questions))
    if len(answers) != wanted or not all(text.strip() for text in answers):
        raise Refused(
            f"{ask.id} wants {wanted} answer(s), none empty, as a list in the order asked; nothing was answered"
        )
    found = []
    for index, text in enumerate(answers):
        question = ask.questions[index] if ask.questions else None
        labels = {option.label.casefold(): option.label for option in question.options} if question else {}
        several = [piece.strip() for piece in text.split(",")]
        if question is not None and question.multiple and all(piece.casefold() in labels for piece in several):
            found.append([labels[piece.casefold()] for piece in several])
        else:
            found.append([labels.get(text.strip().casefold(), text.strip())])
    return found
