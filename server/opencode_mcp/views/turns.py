"""How a turn stands: the result of whatever starts one or goes on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_common.text import bare, clean, cut_head, fence, one_line, quote_name
from opencode_fleet.errors import FleetError, Refused
from opencode_mcp.views.asks import AskRow
from opencode_mcp.views.rows import MAX_TEXT, OWN_WORDS, Result, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Outcome
    from opencode_fleet.settling import Replies
    from opencode_mcp.attachments import Link
    from opencode_mcp.views.shown import Shown

_PROBLEM = 500
_LEAST = 100
"""Characters that each of several turns has in any case."""
NOT_TAKEN = frozenset({"refused", "failed"})
"""Results of instances that did not take a message, or of which that is not known."""


class SentRow(Row):
    """What became of a message at one of several instances."""

    instance: str
    result: str
    session: str = ""
    problem: str = ""
    note: str = ""


class TurnResult(Result):
    """How a turn stands. `when`: at which moment its message came."""

    instance: str
    session: str
    result: str
    when: str = "now"
    text: str = ""
    problem: str = ""
    note: str = ""
    asks: list[AskRow] = []


class SettledRow(Row):
    """What became of one of several asks: `settled`, `released`, `refused` or settled `elsewhere`."""

    ask: str
    result: str
    text: str


class ReplyResult(TurnResult):
    """How the turn stands that waited; of several turns the one that needs the person, else the first."""

    settled: list[SettledRow] = []


class SendResult(TurnResult):
    """How a turn stands, or, where a message went to several instances, each of them."""

    sent: list[SentRow] = []


def turned(instance: Instance, outcome: Outcome, shown: Shown) -> tuple[str, TurnResult]:
    """Return how a turn stands, for people and for programs."""
    turn = turn_result(instance, outcome, shown)
    asks = shown.text(instance, outcome.asks) if outcome.asks else ""
    return turn_text(turn, asks, shown.session(instance, turn.session)), turn


def replied(
    instance: Instance, replies: Replies, shown: Shown, note: str, names: Mapping[str, str]
) -> tuple[str, ReplyResult]:
    """Return what became of several asks, and how the turns stand that waited for them.

    `note`: what the person should know besides. `names`: how the person calls the asks, by their ids.
    """
    rows = [
        SettledRow(ask=names.get(each.ask_id, each.ask_id), result=each.result, text=clean(each.says))
        for each in replies.settled
    ]
    texts = [f"{row.ask}: {row.result}: {row.text}." for row in rows] or ["Nothing was settled."]
    texts += [f"Note: {note}."] if note else []
    share = (MAX_TEXT - OWN_WORDS) // max(1, len(replies.outcomes))
    told = [turn_result(instance, outcome, shown, share) for outcome in replies.outcomes]
    # What they ask is listed once, so that all of it is within the bound of one listing.
    texts += [turn_text(turn, "What it asks stands below.", shown.session(instance, turn.session)) for turn in told]
    asks = [ask for outcome in replies.outcomes for ask in outcome.asks]
    texts += [shown.text(instance, asks)] if asks else []
    main = next((turn for turn in told if turn.asks), told[0] if told else waiting(instance, [], shown))
    notes = "; ".join(each for each in (note, main.note) if each)
    fields = main.model_dump() | {"asks": [ask for turn in told for ask in turn.asks], "note": notes}
    return "\n".join(texts), ReplyResult(**fields, settled=rows)


def stopped(instance: Instance, session_id: str | None, shown: Shown) -> tuple[str, TurnResult]:
    """Return that a session was stopped, or that there was none to stop."""
    text = (
        f"stopped session {shown.session(instance, session_id)}"
        if session_id
        else "nothing ran, so nothing was stopped"
    )
    turn = TurnResult(instance=instance.name, session=session_id or "", result="stopped" if session_id else "idle")
    return f"{instance.quoted}: {text}.", turn


def upload_asked(link: Link) -> tuple[str, SendResult]:
    """Return a link on which the person uploads a file; programs find its address in `text`, its handle in `note`."""
    return link.told, SendResult(instance="", session="", result="upload", text=link.url, note=link.handle)


def sent_to_all(sent: Sequence[tuple[Instance, Outcome | FleetError]], shown: Shown) -> tuple[str, SendResult]:
    """Return which of several instances took a message; their turns go on by themselves."""
    rows = [_sent_row(instance, outcome) for instance, outcome in sent]
    took = sum(row.result not in NOT_TAKEN for row in rows)
    sessions = [shown.session(instance, row.session) for (instance, _), row in zip(sent, rows, strict=True)]
    lines = [
        f"{quote_name(row.instance)}: {_sent_text(row, session)}" for row, session in zip(rows, sessions, strict=True)
    ]
    head = f"{took} of {len(rows)} took the message."
    text = [head, *lines, *(["`instances` and `read` show how far they are; do not send it again."] if took else [])]
    return "\n".join(text), SendResult(instance="", session="", result="sent" if took else "refused", sent=rows)


def _sent_row(instance: Instance, outcome: Outcome | FleetError) -> SentRow:
    if isinstance(outcome, FleetError):
        result = "refused" if isinstance(outcome, Refused) else "failed"
        return SentRow(instance=instance.name, result=result, problem=one_line(bare(str(outcome)), 300))
    return SentRow(
        instance=instance.name, result=outcome.result, session=outcome.session_id, note=one_line(outcome.note, 300)
    )


def _sent_text(row: SentRow, session: str) -> str:
    if row.problem:
        return f"{row.result}: {fence(row.problem)}"
    note = f" Note: {row.note}." if row.note else ""
    return f"{row.result}, session {session}.{note}"


def waiting(instance: Instance, asks: Sequence[Ask], shown: Shown) -> TurnResult:
    """Return what an instance waits for, for programs."""
    result = "waits" if asks else "idle"
    return TurnResult(instance=instance.name, session="", result=result, asks=shown.rows(instance, asks))


def turn_result(instance: Instance, outcome: Outcome, shown: Shown, room: int = MAX_TEXT - OWN_WORDS) -> TurnResult:
    """Return a turn's result, its text cut at its beginning: the end matters most.

    `room`: characters of the agent's text and problem.
    """
    hint = f"`read` session {shown.session(instance, outcome.session_id)} with a larger max_chars for all of it"
    problem = one_line(outcome.problem, min(_PROBLEM, max(_LEAST, room)))
    return TurnResult(
        instance=instance.name,
        session=outcome.session_id,
        result=outcome.result,
        text=cut_head(clean(outcome.text), max(_LEAST, room - len(problem)), hint),
        problem=problem,
        note=outcome.note,
        when=outcome.when,
        asks=shown.rows(instance, outcome.asks),
    )


def turn_text(turn: TurnResult, asks: str, session: str) -> str:
    """Return a turn's result for the model: our words outside of the delimiters, the instance's inside.

    `asks`: the text of those that it waits for. `session`: its handle.
    """
    where = f"instance {quote_name(turn.instance)}, session {session}"
    if turn.when == "steer":
        where += " (sent into the running turn)"
    said = [fence(turn.text)] if turn.text else []
    note = [f"Note: {turn.note}."] if turn.note else []
    match turn.result:
        case "done":
            lines = [f"{where}: done.", *(said or ["It ended without a text; `read` shows what it did."])]
        case "running":
            trouble = [f"Not all is well: {fence(turn.problem)}"] if turn.problem else []
            lines = [
                f"{where}: still working; it goes on by itself. So far:",
                *(said or ["(nothing yet)"]),
                *trouble,
                f"Pick it up with `read` (session {session}); do not send the message again.",
            ]
        case "queued":
            lines = [
                f"{where}: queued; it begins after what runs there now.",
                f"Pick its answer up with `read` (session {session}); do not send the message again.",
            ]
        case "lost":
            lines = [
                f"{where}: nothing is heard of it any more: {fence(turn.problem)}",
                *said,
                f"Once it can be reached, `read` (session {session}) shows what became of it.",
                "Do not send the message again.",
            ]
        case "failed":
            lines = [f"{where}: the turn failed.", fence(turn.problem), *said]
        case _:
            head = "it asks for permission" if turn.result == "needs-permission" else "it asks a question"
            lines = [f"{where}: {head} and waits.", *said, asks]
    return "\n".join([*lines, *note])
