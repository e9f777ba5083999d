"""What counts as a person's answer to what an agent asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from opencode_common.reveal import reveal
from opencode_common.text import one_line
from opencode_fleet.errors import Refused
from opencode_fleet.model import MAX_ASK_SHOWN, Permission

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Question, QuestionItem

MAX_REASON: Final = 1_000
"""Characters of why something was rejected."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """A person's word on an ask: `once`, `always`, `reject` (perhaps with a reason) or `answer`."""

    decision: str
    reason: str = ""
    answers: list[list[str]] = field(default_factory=list)
    """For each item of a question the chosen option values or one free text."""


REJECT = Settlement("reject")


def settlement_of(ask: Ask, answer: str | list[str], instance: Instance) -> Settlement:
    """Return what `answer` means for the ask.

    Raises:
        Refused: it does not fit, or is more than may be decided from afar; nothing near to a yes is taken for one.
    """
    if isinstance(ask, Permission):
        decision, reason = permission_decision(answer)
        settlement = Settlement(decision, reason or "")
    elif isinstance(answer, str) and answer.strip().lower() == "reject":
        settlement = REJECT
    else:
        settlement = Settlement("answer", answers=question_answers(ask, answer))
    if settlement.decision == "reject":
        return settlement
    if ask.size > MAX_ASK_SHOWN:
        raise Refused(
            "it is too large to be shown here whole, so it can only be rejected here; settle it on the "
            "machine itself. Nothing was settled"
        )
    if settlement.decision == "always":
        _check_always(ask, instance)
    return settlement


def _check_always(ask: Ask, instance: Instance) -> None:
    if isinstance(ask, Permission) and ask.always_refused:
        raise Refused(f"`always` is not possible here: {ask.always_refused}; answer `once`. Nothing was settled")
    if instance.rights is not None and "always" not in instance.rights:
        raise Refused(
            f"the owner of {instance.quoted}'s machine does not let `always` through from afar; answer `once`, or "
            "add always to `remote` in its config.toml. Nothing was settled"
        )


def permission_decision(answer: str | list[str]) -> tuple[str, str | None]:
    """Return the decision (`once`, `always`, `reject`) and the reason of a rejection.

    Raises:
        Refused: it is none of them; nothing near to a yes is taken for one.
    """
    text = answer if isinstance(answer, str) else " ".join(answer)
    word, colon, reason = text.strip().partition(":")
    decision = word.strip().lower()
    if decision == "reject":
        if len(reason.strip()) > MAX_REASON:
            raise Refused(f"a rejection's reason has at most {MAX_REASON:,} characters; nothing was settled")
        return decision, reason.strip() or None
    if decision in {"once", "always"} and not colon:
        return decision, None
    raise Refused(
        f"{one_line(text, 80)!r} settles no permission: answer `once`, `always`, `reject` or `reject: why`; "
        "nothing was settled"
    )


def question_answers(ask: Question, answer: str | list[str]) -> list[list[str]]:
    """Return option values (or one free text) for each of the ask's items.

    Several options are separated by commas, also where a label has commas itself.

    Raises:
        Refused: an empty answer, or not one answer for each item.
    """
    answers = [answer] if isinstance(answer, str) else answer
    wanted = max(1, len(ask.items))
    if len(answers) != wanted or not all(text.strip() for text in answers):
        raise Refused(f"it wants {wanted} answer(s), none empty, as a list in the order asked; nothing was answered")
    return [_chosen(ask.items[index] if ask.items else None, text.strip()) for index, text in enumerate(answers)]


def _chosen(item: QuestionItem | None, text: str) -> list[str]:
    if item is None:
        return [text]
    # A label with what hides in it comes back as it was shown.
    values = {reveal(option.label).casefold(): option.value or option.label for option in item.options}
    values |= {option.label.casefold(): option.value or option.label for option in item.options}
    whole = values.get(text.casefold())
    if whole is not None:
        return [whole]
    if item.multiple and (several := _several(text.casefold(), values)) is not None:
        return several
    return [text]


def _several(text: str, values: dict[str, str]) -> list[str] | None:
    """Return the values of labels that make up the whole of `text`, separated by commas; None if they do not.

    The longest label is tried first, as one may begin with another.
    """
    text = text.strip()
    for label in sorted(values, key=len, reverse=True):
        if text == label:
            return [values[label]]
        rest = text[len(label) :].lstrip() if text.startswith(label) else ""
        if rest.startswith(",") and (others := _several(rest[1:], values)) is not None:
            return [values[label], *others]
    return None
