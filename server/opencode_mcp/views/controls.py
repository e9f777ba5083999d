"""What was done with sessions beside their turns, or would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_common.text import clean, quote_name
from opencode_mcp.views.rows import Result, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.control import Done


class DoneRow(Row):
    """How it stands with one session."""

    result: str
    """`done`, `nothing`, `planned`, `going-on`, `unknown` or `refused`."""
    text: str
    instance: str = ""
    session: str = ""


class ControlResult(Result):
    """What was done, or what would be: then `plan` is what lets it be done."""

    rows: list[DoneRow]
    plan: str = ""
    instance: str = ""
    session: str = ""
    """Of one row also here, as other tools tell them."""


def control_result(done: Sequence[Done]) -> ControlResult:
    """Return what was done, for programs."""
    rows = [
        DoneRow(result=each.result, text=clean(each.says), instance=each.instance, session=each.session)
        for each in done
    ]
    return ControlResult(
        rows=rows,
        plan=next((each.plan for each in done if each.plan), ""),
        instance=rows[0].instance if len(rows) == 1 else "",
        session=rows[0].session if len(rows) == 1 else "",
    )


def control_text(result: ControlResult) -> str:
    """Return what was done for the model, and how it goes on where it is only planned."""
    lines = [_line(row) for row in result.rows]
    if result.plan:
        lines.append(
            "Nothing was done yet. Show this to the person, and only on their word make the same call again with "
            f"plan={result.plan!r}; it is good once, for ten minutes, and while nothing of it changes."
        )
    return "\n".join(lines)


def _line(row: DoneRow) -> str:
    """Return what is said of a session; how it stands is in these words already."""
    where = [f"instance {quote_name(row.instance)}"] if row.instance else []
    where += [f"session {row.session}"] if row.session else []
    return f"{', '.join(where)}: {row.text}." if where else f"{row.text[:1].upper()}{row.text[1:]}."
