"""Turns that were begun from here and of whose ends nobody was told yet, for all copies of the server.

Each prompt is noted before it is posted. The end of a turn, once it is written, takes back the newest note of its
session: an older one that is left then is of a turn whose end was missed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import BaseModel, ValidationError

from opencode_fleet.differences import is_id

if TYPE_CHECKING:
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
            prompts = [each for each in known if each != prompt] + [prompt]
            self._set(instance, session, prompts[-MAX_OF_SESSION:])

        self._journal.together(write)

    def drop(self, instance: str, session: str, prompt: str) -> bool:
        """Take a note back: nothing was sent, or its end is told. Return whether it was there."""

        def write() -> bool:
            known = self._read(instance, session)
            if prompt in known:
                self._set(instance, session, [each for each in known if each != prompt])
            return prompt in known

        return self._journal.together(write)

    def ended(self, instance: str, session: str) -> None:
        """Take the newest note of a session back; call it in the transaction that writes that a turn of it ended."""
        known = self._read(instance, session)
        if known:
            self._set(instance, session, known[:-1])

    def untold(self) -> list[Begun]:
        """Return the oldest of each session that any is noted of."""
        found = []
        for value in self._journal.states(_KEY).values():
            noted = _parsed(value)
            if noted is not None and noted.prompts:
                found.append(Begun(noted.instance, noted.session, noted.prompts[0], noted.at))
        return found

    def _read(self, instance: str, session: str) -> list[str]:
        noted = _parsed(self._journal.state(f"{_KEY}{instance}/{session}"))
        return [] if noted is None else noted.prompts

    def _set(self, instance: str, session: str, prompts: list[str]) -> None:
        noted = _Noted(at=time.time(), instance=instance, session=session, prompts=prompts)
        self._journal.set_state(f"{_KEY}{instance}/{session}", noted.model_dump() if prompts else None)


def _parsed(value: object) -> _Noted | None:
    try:
        return None if value is None else _Noted.model_validate(value)
    except ValidationError:
        return None  # of a later version
