"""Who decided of an ask from here, and how: noted before the agent is told, and looked up once it is settled.

The note is a state of the journal until the recorder has seen the ask settled; then the entry of that has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opencode_common.text import one_line
from opencode_journal.entries import ASK_SETTLED

if TYPE_CHECKING:
    from opencode_journal.journal import Journal

BY: Final = "by"
"""The key of the login in an entry's data; missing where nobody's login is known."""
_DECIDED: Final = "decided/"
_LOGIN: Final = 80
_HOW: Final = 20
_LOOKED_THROUGH: Final = 500
"""Settlements, the newest: of older ones it is not told who decided."""


class Decision(NamedTuple):
    """What was decided, from here or there. Both are short and clean, and `login` is empty where it is not known."""

    how: str
    login: str = ""


class Decisions:
    """The decisions that a journal has, for all copies of the server."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def note(self, instance: str, ask_id: str, decision: Decision | None) -> None:
        """Note what is about to be decided; None: it was not decided from here after all."""
        value = None if decision is None else [one_line(decision.how, _HOW), one_line(decision.login, _LOGIN)]
        self._journal.set_state(_key(instance, ask_id), value)

    def noted(self, instance: str, ask_id: str) -> Decision | None:
        """Return what was noted; None: nothing was, or the recorder has written it meanwhile."""
        match self._journal.state(_key(instance, ask_id)):
            case [str(how), str(login)]:
                return Decision(how, login)
            case str(how):  # of a version before this one
                return Decision(how)
            case _:
                return None

    def settled(self, instance: str, ask_id: str) -> Decision | None:
        """Return how an ask was settled, and who did; None where nothing is known of it."""
        if (noted := self.noted(instance, ask_id)) is not None:
            return noted
        for entry in reversed(self._journal.latest(_LOOKED_THROUGH, {ASK_SETTLED})):
            if (entry.instance, entry.ask) == (instance, ask_id):
                data = entry.data
                return Decision(one_line(str(data.get("how", "")), _HOW), one_line(str(data.get(BY, "")), _LOGIN))
        return None

    def login(self, instance: str, ask_id: str) -> str:
        """Return who decided of an ask that is settled; empty where that is not known."""
        found = self.settled(instance, ask_id)
        return found.login if found is not None else ""


def told(decision: Decision | None) -> dict[str, Any]:
    """Return what the entry of a settlement has of a decision: whether it was ours, and whose."""
    by = {BY: decision.login} if decision is not None and decision.login else {}
    return {"by_us": decision is not None, **by}


def _key(instance: str, ask_id: str) -> str:
    return f"{_DECIDED}{instance}/{ask_id}"
