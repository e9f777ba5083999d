"""A tool call as text: one line, the end of what it said, and on request more of that and what it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_common.text import clean, one_line

if TYPE_CHECKING:
    from opencode_fleet.model import ToolCall

OUTPUT_LENGTH: Final = 600
"""Characters of a tool's output, its end."""
ARGUMENT_LENGTH: Final = 160
DETAIL_LENGTH: Final = 4_000
"""Characters of an output's end, and of a diff's beginning, where details are asked for."""
DETAIL_ARGUMENT_LENGTH: Final = 2_000


def call_text(call: ToolCall, *, busy: bool, details: bool) -> str:
    """Return a tool call for people; where the session is not `busy`, it does not run, whatever its record says."""
    status = call.status if busy or call.status in {"completed", "error"} else "interrupted"
    title = one_line(call.title, DETAIL_ARGUMENT_LENGTH if details else ARGUMENT_LENGTH)
    line = f"[{one_line(call.name, 40)}: {status}] {title}"
    if call.status == "error":
        return f"{line} — {one_line(call.error, 300)}"
    lines = [line]
    if output := clean(call.output.strip()):
        lines.append(_indented(_end_of(output, DETAIL_LENGTH if details else OUTPUT_LENGTH)))
    if details and (diff := clean(call.diff.strip())):
        lines.append(_indented(_beginning_of(diff, DETAIL_LENGTH)))
    return "\n".join(lines)


def _end_of(output: str, length: int) -> str:
    """Return the last lines of a tool's output, which say how it went; a mark says that more was before."""
    kept = output[-length:]
    return kept if len(kept) == len(output) else f"… {kept}"


def _beginning_of(diff: str, length: int) -> str:
    """Return a diff up to a length; how much is missing is not known, as it was fetched only in part."""
    return diff if len(diff) <= length else f"{diff[:length]}\n[… cut; `changes` with this file shows more]"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
