"""What an agent waits for, shown whole: nobody can approve what was cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from opencode_common.text import clean, fence
from opencode_fleet.model import MAX_ASK_SHOWN, Permission
from opencode_mcp.rows import AskRow

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Question


def ask_row(instance: Instance, ask: Ask) -> AskRow:
    """Return an ask with the whole of what would run or change: nobody can approve what was cut."""
    root = instance.state.root_of(ask.session_id)
    if ask.size > MAX_ASK_SHOWN:
        text = f"[{ask.size:,} characters, too large to show whole: reject it, or settle it on the machine itself]"
    else:
        text = _permission_text(ask, instance) if isinstance(ask, Permission) else _question_text(ask)
    if root != ask.session_id:
        text = f"(asked by a subagent, {ask.session_id})\n{text}"
    kind: Literal["permission", "question"] = "permission" if isinstance(ask, Permission) else "question"
    return AskRow(id=ask.id, kind=kind, session=root, text=clean(text))


def _permission_text(ask: Permission, instance: Instance) -> str:
    lines = [f"permission: {_indented(ask.action)}"]
    if not ask.is_split:
        lines += [f"for: {_indented(pattern)}" for pattern in ask.patterns]
    lines += [f"{_indented(label)}: {_indented(text)}" for label, text in ask.details]
    lines.append(_always(ask, instance))
    return "\n".join(lines)


def _always(ask: Permission, instance: Instance) -> str:
    """Say what `always` would let through besides, or why it is not to be had."""
    if ask.always_refused:
        return f"`always` is not possible here: {ask.always_refused}"
    if instance.rights is not None and "always" not in instance.rights:
        return "`always` is not let through from afar by the owner of that machine"
    covers = _indented(", ".join(ask.always)) if ask.always else "nothing more than this"
    return f"`always` would also allow, {ask.always_means}: {covers}"


def _indented(value: str) -> str:
    """Set off the further lines of a value: at the beginning of a line stand only our own words."""
    return "\n    ".join(["", *value.splitlines()]) if "\n" in value else value


def _question_text(ask: Question) -> str:
    lines = []
    for number, item in enumerate(ask.items, 1):
        several = " (several may be chosen, separated by commas)" if item.multiple else ""
        lines.append(f"question {number} of {len(ask.items)}: {_indented(item.question)}{several}")
        lines += [_indented(f"- {option.label}: {option.description}").removesuffix(": ") for option in item.options]
    return "\n".join(lines)


def gist(ask: Ask) -> str:
    """Return in one line what is asked, with a mark where more follows; not yet cleaned."""
    if isinstance(ask, Permission):
        command = next((text for label, text in ask.details if label == "command"), "")
        first = command or (ask.patterns[0] if ask.patterns else "")
        more = len(ask.patterns) - 1
        return f"{ask.action} {first}" + (f" (and {more} more)" if more > 0 and not command else "")
    return ask.items[0].question if ask.items else "an answer"


def asks_text(asks: list[AskRow]) -> str:
    """Return the asks in full, with how to settle them."""
    blocks = [f"{ask.id} ({ask.kind}, session {ask.session})\n{ask.text}" for ask in asks]
    return (
        f"{fence(chr(10).join(blocks))}\n"
        "Show this to the person, and only on their word call `reply` with `ask` and `answer`: once, always or "
        "reject (also `reject: why`) for a permission; a label or text for a question, reject to decline."
    )
