"""Asks, turns and ends as documents for pages: every string from another machine revealed, all of it bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from opencode_common.reveal import reveal
from opencode_common.text import one_line
from opencode_fleet.agent import Capability
from opencode_fleet.model import MAX_ASK_SHOWN, Permission
from opencode_mcp.views.asks import (
    GIST_LENGTH,
    MAX_REVEALED,
    SHELLS,
    gist,
    is_always_kept_back,
    is_diff,
    outline,
    pattern_means,
    permission_parts,
)
from opencode_mcp.views.digests import digest, digest_of, digest_of_waiting
from opencode_pages.documents import AskDocument, AskItem, AskPart, AskSummary, Choice, EndedTurn

if TYPE_CHECKING:
    from opencode_fleet.decisions import Decision
    from opencode_fleet.inbox import Waiting
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, QuestionItem
    from opencode_mcp.handles import Handles
    from opencode_mcp.views.inbox import EndRow

_NAME: Final = 64
_PATH: Final = 400
_WORD: Final = 20
_KEPT_BACK: Final = "the owner of that machine does not let it through from afar"
_TITLE: Final = 80
_SETTLED: Final = {
    "once": "allowed once",
    "always": "allowed, with `always`",
    "reject": "rejected",
    "rejected": "rejected",
    "declined": "rejected",
    "answer": "answered",
    "answered": "answered",
    "with its turn": "its turn ended",
    "closed": "OpenCode was closed there",
}
"""How an ask was settled, for people."""


def line(text: str, limit: int) -> str:
    """Return a text revealed, on one line of at most `limit` characters."""
    return one_line(reveal(text[: 8 * limit]), limit)


def ask_summary(waiting: Waiting, handles: Handles) -> AskSummary:
    """Return an ask in a line."""
    return AskSummary(**_summary(waiting, handles))


def _summary(waiting: Waiting, handles: Handles) -> dict[str, Any]:
    # What is made of an ask was revealed; what was recorded of it was not.
    summary = one_line(gist(waiting.ask), GIST_LENGTH) if waiting.ask else line(waiting.about, GIST_LENGTH)
    return {
        "handle": handles.of_ask(waiting.instance, waiting.id, digest_of_waiting(waiting)),
        "id": waiting.id,
        "kind": "question" if waiting.is_question else "permission",
        "instance": line(waiting.instance, _NAME),
        "session": handles.of_session(waiting.instance, waiting.root) if waiting.root else "",
        "title": line(waiting.title, _TITLE),
        "summary": summary,
        "since": waiting.since,
        "away": waiting.place is None,
    }


def ended(row: EndRow) -> EndedTurn:
    """Return something that is over."""
    return EndedTurn(
        result=row.result,
        instance=line(row.instance, _NAME),
        session=row.session_handle,
        title=reveal(row.title),
        problem=reveal(row.problem),
        at=row.at,
    )


def ask_open(waiting: Waiting, instance: Instance, ask: Ask, handles: Handles) -> AskDocument:
    """Return an ask that waits, whole if that is possible at all."""
    root = instance.state.root_of(ask.session_id)
    parts = _parts(ask) if isinstance(ask, Permission) else []
    items = () if isinstance(ask, Permission) else tuple(map(_item, ask.items))
    is_whole = ask.size <= MAX_ASK_SHOWN and _length(parts, items) <= MAX_REVEALED
    if not is_whole:
        parts, items = [AskPart(label="outline", text=outline(instance, ask))], ()
    return AskDocument(
        **_summary(waiting, handles),
        digest=digest_of(instance, ask),
        state="away" if waiting.place is None else "open",
        whole=is_whole,
        directory=line(instance.state.directory or instance.endpoint.directory, _PATH),
        subagent="" if root == ask.session_id else handles.of_session(instance.name, ask.session_id),
        parts=tuple(parts),
        items=items,
        **(_of_always(ask, instance) if isinstance(ask, Permission) else {}),
    )


def ask_away(waiting: Waiting, handles: Handles, directory: str) -> AskDocument:
    """Return what the journal has of an ask whose machine is away, or does not answer."""
    return AskDocument(
        **_summary(waiting, handles),
        digest=digest("away", waiting.instance, waiting.id, waiting.about),
        state="away",
        whole=False,
        directory=line(directory, _PATH),
    )


def ask_settled(waiting: Waiting, handles: Handles, decision: Decision | None) -> AskDocument:
    """Return that an ask waits no more: how, and who decided, as far as it is known."""
    how = _SETTLED.get(decision.how, line(decision.how, _WORD)) if decision else ""
    by = f"by {line(decision.login, _TITLE)}" if decision and decision.login else ""
    return AskDocument(
        **_summary(waiting, handles),
        digest=digest("settled", waiting.instance, waiting.id),
        state="settled",
        settled=", ".join(each for each in (how, by) if each),
        whole=False,
    )


def _parts(ask: Permission) -> list[AskPart]:
    return [
        AskPart(label=reveal(label), text=reveal(text), kind=_part_kind(ask, label, text))
        for label, text in permission_parts(ask)
    ]


def _part_kind(ask: Permission, label: str, text: str) -> Literal["text", "command", "diff"]:
    if is_diff(text.splitlines()):
        return "diff"
    return "command" if label == "command" or (label == "for" and ask.action in SHELLS) else "text"


def _item(item: QuestionItem) -> AskItem:
    options = tuple(
        Choice(label=reveal(option.label), description=reveal(option.description)) for option in item.options
    )
    return AskItem(question=reveal(item.question), options=options, multiple=item.multiple)


def _length(parts: list[AskPart], items: tuple[AskItem, ...]) -> int:
    return sum(len(part.label) + len(part.text) for part in parts) + sum(
        len(item.question) + sum(len(choice.label) + len(choice.description) for choice in item.options)
        for item in items
    )


def _of_always(ask: Permission, instance: Instance) -> dict[str, Any]:
    refused = ask.always_refused or (_KEPT_BACK if is_always_kept_back(instance) else "")
    means = [ask.always_means, pattern_means(ask)]
    return {
        "always": tuple(reveal(pattern) for pattern in ask.always),
        "always_means": "; ".join(each for each in means if each),
        "always_refused": refused,
        "reason_is_message": not instance.can(Capability.REASONS),
    }
