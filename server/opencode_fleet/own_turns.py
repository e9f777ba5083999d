"""Turns that were begun from here and of whose ends nobody was told yet, for all copies of the server.

Each prompt is noted before it is posted. The end of a turn, once it is written, takes back the newest note of its
session: an older one that is left then is of a turn whose end was missed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import BaseModel, ValidationError

from opencode_fleet.differences import is_id
from opencode_journal.entries import MESSAGE, TURN_ENDED, TURN_FAILED, TURN_STARTED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opencode_fleet.differences import Change
    from opencode_journal.journal import Journal

MAX_OF_SESSION: Final = 20
"""Prompts that are noted of a session; the oldest go first."""
_KEY: Final = "begun/"


class _Noted(BaseModel):
    at: float
    instance: str
    session: str
    prompts: list[str]


class Begun(NamedTuple):
    """A turn of whose end nobody was told. `at`: when the session was sent something last, in epoch seconds."""

    instance: str
    session: str
    prompt: str
    at: float


class OwnTurns:
    """The turns that a journal has as begun from here."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def note(self, instance: str, session: str, prompt: str) -> None:
        """Note what is about to be posted and begins a turn."""
        if not (is_id(session) and is_id(prompt)):
            return

        def write() -> None:
            known = self._read(instance, session)
            prompts = [each for each in known.prompts if each != prompt] + [prompt]
            self._set(known, prompts[-MAX_OF_SESSION:], at=time.time())

        self._journal.together(write)

    def drop(self, instance: str, session: str, prompt: str) -> bool:
        """Take a note back: nothing was sent, or its end is told. Return whether it was there."""

        def write() -> bool:
            known = self._read(instance, session)
            if prompt in known.prompts:
                self._set(known, [each for each in known.prompts if each != prompt])
            return prompt in known.prompts

        return self._journal.together(write)

    def cost(self, instance: str, changes: Iterable[Change]) -> int:
        """Return how much of its machine's allowance changes take.

        Turns that were begun from here take none: what is sent bounds them, and each end takes a note back.
        """
        cost = 0
        left: dict[str, int] = {}
        for change in changes:
            is_end = change.kind in {TURN_ENDED, TURN_FAILED}
            if not is_end and change.kind != TURN_STARTED:
                cost += 1
                continue
            notes = left.setdefault(change.session, len(self._read(instance, change.session).prompts))
            is_kept_message = MESSAGE in change.data
            cost += not (notes or is_kept_message)
            if is_end and notes and not is_kept_message:
                left[change.session] -= 1
        return cost

    def ended(self, instance: str, session: str) -> None:
        """Take the newest note of a session back; call it in the transaction that writes that a turn of it ended."""
        known = self._read(instance, session)
        if known.prompts:
            self._set(known, known.prompts[:-1])

    def untold(self) -> list[Begun]:
        """Return all that are noted, the oldest of each session first."""
        return [
            Begun(noted.instance, noted.session, prompt, noted.at)
            for value in self._journal.states(_KEY).values()
            if (noted := _parsed(value)) is not None
            for prompt in noted.prompts
        ]

    def _read(self, instance: str, session: str) -> _Noted:
        noted = _parsed(self._journal.state(f"{_KEY}{instance}/{session}"))
        return _Noted(at=0.0, instance=instance, session=session, prompts=[]) if noted is None else noted

    def _set(self, known: _Noted, prompts: list[str], *, at: float | None = None) -> None:
        noted = known.model_copy(update={"prompts": prompts, "at": known.at if at is None else at})
        key = f"{_KEY}{known.instance}/{known.session}"
        self._journal.set_state(key, noted.model_dump() if prompts else None)


def _parsed(value: object) -> _Noted | None:
    try:
        return None if value is None else _Noted.model_validate(value)
    except ValidationError:
        return None  # of a later version
