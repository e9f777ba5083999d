"""What a notice says: where, and what kind of thing it is; what of the work is quoted is the person's to choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_common.text import MAX_NAME, bare, one_line
from opencode_common.times import moment_text
from opencode_notify.notice import Notice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_notify.due import Item
    from opencode_notify.rules import NoticeRules

LINES: Final = 10
"""Of one message; of more it says how many."""
_QUOTED: Final = 200
_KINDS: Final = {
    "bash": "a shell command",
    "shell": "a shell command",
    "edit": "an edit",
    "write": "an edit",
    "patch": "an edit",
    "multiedit": "an edit",
    "read": "reading a file",
    "external_directory": "work outside of its directory",
    "webfetch": "a look at the web",
    "websearch": "a look at the web",
    "task": "a subagent",
    "doom_loop": "going on with what repeats itself",
}
"""What agents call permissions, in words. Any other name is theirs, and is not quoted."""
_ENDS: Final = {
    "done": "is done",
    "failed": "failed",
    "lost": "was lost while it worked",
    "back": "is back",
}
_PRIORITY: Final = {"permission": 4, "answer": 4, "failed": 4, "lost": 4, "done": 3, "back": 2}


def notice_of(id_: str, items: Sequence[Item], rules: NoticeRules, *, url: str = "", relay: str = "") -> Notice:
    """Return the notice of a message.

    Args:
        id_: of the message.
        items: what it tells, at least one.
        rules: what may be quoted.
        url: of its page, or empty.
        relay: whose it is, as several may share an outlet.
    """
    first = items[0]
    lines = [_line(item, rules) for item in items[:LINES]]
    if len(items) > LINES:
        lines.append(f"and {len(items) - LINES} more")
    if len(items) == 1:
        title, lines[0] = _headline(first), f"Since {moment_text(first.at)}." if first.is_open else _when(first)
        lines += _quotes(first, rules)
    else:
        waiting = sum(item.event in {"permission", "answer"} for item in items)
        title = f"{waiting} asks wait for you" if waiting > 1 else f"{len(items)} things to know"
    return Notice(
        id=id_,
        title=title,
        body="\n".join(lines),
        priority=max(_PRIORITY[item.event] for item in items),
        url=url,
        tag=_tag(id_, relay),
    )


def notice_of_withdrawal(id_: str, relay: str = "") -> Notice:
    """Return what takes the notice of a message back."""
    tag = _tag(id_, relay)
    return Notice(id=id_, title="Settled", body="It was settled elsewhere.", priority=1, tag=tag, withdrawn=True)


def _tag(id_: str, relay: str) -> str:
    return f"{relay}/{id_}" if relay else ""


def _headline(item: Item) -> str:
    where = one_line(bare(item.instance), MAX_NAME)
    if item.event == "permission":
        return f"{where} asks for {_kind(item)}"
    return f"{where} has a question" if item.event == "answer" else f"{where} {_ENDS[item.event]}"


def _kind(item: Item) -> str:
    return _KINDS.get(item.about.partition(" ")[0], "a permission")


def _line(item: Item, rules: NoticeRules) -> str:
    return ": ".join([_headline(item), *_quotes(item, rules)])


def _when(item: Item) -> str:
    return f"{moment_text(item.at)}."


def _quotes(item: Item, rules: NoticeRules) -> list[str]:
    is_shown = {"permission": rules.show_command, "answer": rules.show_question}.get(item.event, False)
    quoted = [item.title] if rules.show_title else []
    quoted += [item.about] if is_shown else []
    return [one_line(bare(text), _QUOTED) for text in quoted if text]
