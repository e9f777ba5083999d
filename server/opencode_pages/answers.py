"""What a person said in the form of an ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opencode_pages.documents import AskDocument, AskItem
    from opencode_pages.forms import Fields
    from opencode_pages.parts import Visitor

MAX_REASON: Final = 1_000
"""Characters of what to do instead."""
MAX_TEXT: Final = 4_000
"""Characters of an answer in one's own words."""
OWN_WORDS: Final = "own"
"""Stands for these among the options of a question."""
_BOTH: Final = "What to do instead goes with a rejection. Nothing was decided: reject it, or clear the text."


class Unfit(Exception):
    """What was said cannot be taken; the message says why. Nothing was decided."""


def takes_reason(ask: AskDocument, visitor: Visitor) -> bool:
    """Tell whether a rejection by this visitor may say what to do instead."""
    return ask.kind == "permission" and (not ask.reason_is_message or "drive" in visitor.may)


def offered(ask: AskDocument, visitor: Visitor) -> tuple[str, ...]:
    """Return the decisions that the visitor has here: `reject` first, which nobody gives by accident."""
    if "approve" not in visitor.may or ask.state != "open":
        return ()
    if not ask.whole:
        return ("reject",)
    if ask.kind == "question":
        return ("reject", "answer")
    return ("reject", "once") if ask.always_refused else ("reject", "always", "once")


def answer_of(ask: AskDocument, visitor: Visitor, fields: Fields) -> str | list[str]:
    """Return the answer as `PageDecision` has it. Raises `Unfit`."""
    decision = _one(fields("decision"))
    if decision not in offered(ask, visitor):
        raise Unfit("This cannot be decided so. Nothing was decided.")
    if decision == "answer":
        return [_of_item(item, fields(f"item-{index}"), _one(fields(f"text-{index}"))) for index, item in _items(ask)]
    reason = _one(fields("reason"))
    if not reason:
        return decision
    if decision != "reject":
        raise Unfit(_BOTH)
    if not takes_reason(ask, visitor):
        raise Unfit("You may not say what to do instead: it would be a message to the agent. Nothing was decided.")
    if len(reason) > MAX_REASON:
        raise Unfit(f"What to do instead has at most {MAX_REASON:,} characters. Nothing was decided.")
    return f"reject: {reason}"


def _items(ask: AskDocument) -> list[tuple[int, AskItem]]:
    return list(enumerate(ask.items))


def _of_item(item: AskItem, chosen: list[str], text: str) -> str:
    if len(text) > MAX_TEXT:
        raise Unfit(f"An answer has at most {MAX_TEXT:,} characters. Nothing was sent.")
    known = {str(number): option.label for number, option in enumerate(item.options)}
    labels = [known[each] for each in chosen if each in known]
    if item.multiple:
        return _not_empty(", ".join([*labels, text] if text else labels))
    if text and labels:
        raise Unfit("You chose an answer and wrote one as well: choose your own words, or clear the text.")
    return _not_empty(text or (labels[0] if len(labels) == 1 else ""))


def _not_empty(answer: str) -> str:
    if not answer:
        raise Unfit("Not every question has an answer yet. Nothing was sent.")
    return answer


def _one(values: list[str]) -> str:
    """Return the first value of a field, with ends of lines as everywhere but in forms."""
    return values[0].replace("\r\n", "\n").strip() if values else ""
