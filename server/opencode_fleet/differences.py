"""What is another at an instance than the journal knows to be open there: the changes, each for one entry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opencode_common.text import one_line
from opencode_fleet.model import Permission
from opencode_fleet.open_work import Open, OpenAsk
from opencode_journal.entries import ASK_OPENED, ASK_SETTLED, TURN_ENDED, TURN_FAILED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask

MAX_OPEN: Final = 100
"""Turns, and asks, of one instance that are recorded at a time; of more one hears while they are open."""
MAX_ID: Final = 128
"""Characters of a session's or an ask's id; of one that has more, or odd ones, nothing is recorded.

With `MAX_OPEN` it bounds what is open at an instance to less than a state of the journal may have.
"""
_TITLE: Final = 80
_ABOUT: Final = 200


class Change(NamedTuple):
    """What an entry is to say; see `opencode_journal.entries.Entry`."""

    kind: str
    session: str = ""
    ask: str = ""
    data: dict[str, Any] = {}  # noqa: RUF012 - never changed


def closed(open_: Open) -> list[Change]:
    """Return what ended because the agent was closed in good order; `open_` is emptied."""
    return _emptied(open_, "closed", TURN_FAILED, {"problem": "OpenCode was closed there"})


def gone(open_: Open) -> list[Change]:
    """Return what ended in a directory that its agent shows no more, as nothing runs there; `open_` is emptied."""
    return _emptied(open_, "with its turn", TURN_ENDED, {"unseen": True})


def _emptied(open_: Open, how: str, kind: str, data: dict[str, Any]) -> list[Change]:
    changes = [
        Change(ASK_SETTLED, ask.root, ask_id, {**titled(ask.title), "how": how}) for ask_id, ask in open_.asks.items()
    ]
    changes += [Change(kind, root, data={**titled(title), **data}) for root, title in open_.turns.items()]
    open_.turns, open_.asks, open_.lost = {}, {}, None
    return changes


def is_id(text: str) -> bool:
    """Whether this may stand in the journal as the id of a session or an ask."""
    return len(text) <= MAX_ID and text.isascii() and text.isprintable()


def opened(instance: Instance, open_: Open, waiting: Iterable[Ask]) -> Iterator[Change]:
    """Return the asks that are new among those that wait; they are put into `open_`, as far as there is room."""
    for ask in waiting:
        if len(open_.asks) >= MAX_OPEN:
            return
        root = instance.state.root_of(ask.session_id)
        if ask.id in open_.asks or not (is_id(ask.id) and is_id(root)):
            continue
        is_question = not isinstance(ask, Permission)
        found = open_.asks[ask.id] = OpenAsk(time.time(), root, is_question, _about(ask), title_of(instance, root))
        data = {**titled(found.title), "question": is_question, "about": found.about}
        yield Change(ASK_OPENED, root, ask.id, data)


def _about(ask: Ask) -> str:
    if isinstance(ask, Permission):
        what = dict(ask.details).get("command") or ", ".join(ask.patterns[:3])
        return one_line(f"{ask.action} {what}", _ABOUT)
    return one_line(ask.items[0].question, _ABOUT) if ask.items else ""


def title_of(instance: Instance, root: str) -> str:
    """Return a session's title, short and clean; empty where it is not known."""
    return one_line(instance.state.title(root), _TITLE)


def titled(title: str) -> dict[str, Any]:
    """Return a title as an entry's data; nothing for an empty one."""
    return {"title": title} if title else {}
