"""What an agent waits for, in words for people: whole, outlined, or in one line; nothing in them hides or poses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_common.reveal import reveal
from opencode_common.text import one_line
from opencode_fleet.model import MAX_ASK_SHOWN, Permission
from opencode_mcp.views.rows import Row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Question

MAX_REVEALED: Final = 2 * MAX_ASK_SHOWN
"""Characters of an ask whose marks and escapes are counted too; with more it is not shown whole."""
GIST_LENGTH: Final = 200
_LOOKED_AT: Final = 20_000
"""Characters of an ask that its gist is made of."""
_OUTLINED: Final = 400
"""Characters from which on a value is outlined."""
_FIRST_LINES: Final = 8
_LAST_LINES: Final = 4
_LINE_LENGTH: Final = 120
_OUTLINED_VALUES: Final = 12
"""Values of one ask that its outline has; more are counted."""
_LONG_PATTERN: Final = 200

# Measured on OpenCode 1.18.33: it looks at each command of a line by itself, and not at where its output goes.
SHELLS: Final = {
    "bash": (
        "with any arguments, and its output redirected into any file, also outside of the directory. Asked again "
        "is for other commands beside or inside it, as after `&&`, `|` or in `$(…)`, and for it with variables set "
        "before it"
    ),
    "shell": "with any arguments, and its output redirected into any file, also outside of the directory",
}


class AskRow(Row):
    """What an agent waits for, in one line; the result's text has all of it."""

    id: str
    handle: str = ""
    """What the person and the model call it."""
    kind: str
    """`permission` or `question`."""
    session: str
    summary: str


def ask_row(instance: Instance, ask: Ask, handle: str = "") -> AskRow:
    """Return what programs get of an ask: its gist, as the text has all of it."""
    kind = "permission" if isinstance(ask, Permission) else "question"
    summary = one_line(gist(ask), GIST_LENGTH)
    root = instance.state.root_of(ask.session_id)
    return AskRow(id=ask.id, handle=handle, kind=kind, session=root, summary=summary)


def whole_text(instance: Instance, ask: Ask) -> str | None:
    """Return all of what would run or change, or what is asked; None if that is too large to be shown."""
    if ask.size > MAX_ASK_SHOWN:
        return None
    text = _permission_text(ask, instance) if isinstance(ask, Permission) else _question_text(ask)
    return _by_whom(instance, ask) + text if len(text) <= MAX_REVEALED else None


def outline(instance: Instance, ask: Ask) -> str:
    """Return what an ask is about: its short values, and of the long ones how long they are, and both ends."""
    if isinstance(ask, Permission):
        values = [("permission", ask.action), *(("for", pattern) for pattern in ask.patterns), *ask.details]
        always = [("always", ", ".join(ask.always))] if ask.always else []
        values = [*values[:_OUTLINED_VALUES], *always, *values[_OUTLINED_VALUES:]]
    else:
        values = [
            (f"question {number} of {len(ask.items)}", item.question) for number, item in enumerate(ask.items, 1)
        ]
    lines = [_outlined(one_line(label, 40), text) for label, text in values[: _OUTLINED_VALUES + 1]]
    if left_out := len(values) - len(lines):
        lines.append(f"and {left_out:,} more")
    return _by_whom(instance, ask) + "\n".join(lines)


def gist(ask: Ask) -> str:
    """Return in one line what is asked, revealed, with a mark where more follows."""
    if not isinstance(ask, Permission):
        first = ask.items[0].question if ask.items else "an answer"
        return _line(first) + _and_more(len(ask.items) - 1)
    # A command that OpenCode took to pieces stands whole among the details.
    command = next((text for label, text in ask.details if label == "command"), "")
    first = command or (ask.patterns[0] if ask.patterns else "")
    # Nor are pieces of what is shown any more than that.
    return f"{_line(ask.action)} {_line(first)}" + _and_more(sum(piece not in first for piece in ask.patterns))


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count > 0 else ""


def _line(text: str) -> str:
    """Return the beginning of `text` on one line, on which the end of a line is still to be seen."""
    text = text.strip()
    if len(text) > _LOOKED_AT:
        # A run of blanks that is cut in two would be counted wrongly.
        text = f"{text[:_LOOKED_AT].rstrip()}…"
    return reveal(text).replace("\n", " ⏎ ")


def _by_whom(instance: Instance, ask: Ask) -> str:
    is_root = instance.state.root_of(ask.session_id) == ask.session_id
    return "" if is_root else f"(asked by a subagent, {ask.session_id})\n"


def permission_parts(ask: Permission) -> list[tuple[str, str]]:
    """Return all of what would run or change, in the order to show it: pairs of label and text, not revealed."""
    parts = [("permission", ask.action)]
    if not ask.is_split:
        parts += [("for", pattern) for pattern in ask.patterns if not _stands_in_details(pattern, ask)]
    return [*parts, *ask.details]


def _permission_text(ask: Permission, instance: Instance) -> str:
    lines = [f"{_shown(label)}: {_shown(text)}" for label, text in permission_parts(ask)]
    return "\n".join([*lines, _always(ask, instance)])


def _stands_in_details(pattern: str, ask: Permission) -> bool:
    """Tell whether a long piece need not be said twice."""
    return len(pattern) > _LONG_PATTERN and any(pattern in text for _, text in ask.details)


def _always(ask: Permission, instance: Instance) -> str:
    """Say what `always` would let through besides, or why it is not to be had."""
    if ask.always_refused:
        return f"`always` is not possible here: {ask.always_refused}"
    if is_always_kept_back(instance):
        return "`always` is not let through from afar by the owner of that machine"
    covers = _shown(", ".join(ask.always)) if ask.always else "nothing more than this"
    means = pattern_means(ask)
    return f"`always` would also allow, {ask.always_means}: {covers}" + (f" ({means})" if means else "")


def is_always_kept_back(instance: Instance) -> bool:
    """Tell whether the owner of its machine lets no `always` through from afar."""
    return instance.rights is not None and "always" not in instance.rights


def pattern_means(ask: Permission) -> str:
    """Say what the stars of the patterns of `always` let through; empty where there are none."""
    if not any("*" in pattern for pattern in ask.always):
        return ""
    if ask.action in SHELLS:
        return SHELLS[ask.action]
    if "*" in ask.always:
        return f"every {one_line(reveal(ask.action), 40)}, whatever it is for"
    return "`*` stands for whatever follows"


def _question_text(ask: Question) -> str:
    lines = []
    for number, item in enumerate(ask.items, 1):
        several = " (several may be chosen, separated by commas)" if item.multiple else ""
        lines.append(f"question {number} of {len(ask.items)}: {_shown(item.question)}{several}")
        lines += [_shown(f"- {option.label}: {option.description}".removesuffix(": ")) for option in item.options]
    return "\n".join(lines)


def _shown(value: str) -> str:
    """Return a value revealed, its further lines set off: at the beginning of a line stand only our own words."""
    revealed = reveal(value)
    return "\n    ".join(["", *revealed.splitlines()]) if "\n" in revealed else revealed


def _outlined(label: str, value: str) -> str:
    if len(value) <= _OUTLINED:
        return f"{label}: {_shown(value)}"
    lines = value.splitlines()
    if len(lines) <= _FIRST_LINES + _LAST_LINES:
        shown = [_cut(line) for line in lines]
    else:
        between = f"[… {len(lines) - _FIRST_LINES - _LAST_LINES:,} lines …]"
        shown = [
            *(_cut(line) for line in lines[:_FIRST_LINES]),
            between,
            *(_cut(line) for line in lines[-_LAST_LINES:]),
        ]
    size = f"{len(lines):,} lines, {len(value):,} characters{_changed(lines)}"
    return "\n    ".join([f"{label}: [{size}]", *shown])


def _cut(line: str) -> str:
    """Return a line's beginning, of which a character may become a long mark."""
    shown = reveal(line[:_LINE_LENGTH])[: 3 * _LINE_LENGTH]
    return f"{shown} [… {len(line) - _LINE_LENGTH:,} characters …]" if len(line) > _LINE_LENGTH else shown


def is_diff(lines: Iterable[str]) -> bool:
    """Tell whether these are the lines of a unified diff."""
    return any(line.startswith("@@ ") for line in lines)


def _changed(lines: list[str]) -> str:
    """Return how many lines a unified diff adds and removes; empty of any other text."""
    if not is_diff(lines):
        return ""
    added = sum(line.startswith("+") and not line.startswith("+++ ") for line in lines)
    removed = sum(line.startswith("-") and not line.startswith("--- ") for line in lines)
    return f", {added:,} added, {removed:,} removed"
