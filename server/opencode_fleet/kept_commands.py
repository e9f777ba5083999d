"""Commands whose caller does not have the answer, in the journal: they have no id, so nobody can look for one.

Each is noted before it is run. A server that ends in the middle leaves the note to the next one, which does not run
it again but says, once, that what became of it is not known.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ValidationError

from opencode_common.text import one_line
from opencode_common.times import moment_text
from opencode_fleet.differences import is_id
from opencode_fleet.errors import InstanceError, Refused
from opencode_fleet.kept_calls import ANSWERED_FOR
from opencode_fleet.repeats import REMEMBERED_FOR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from opencode_fleet.repeats import Call
    from opencode_journal.journal import Journal

_KEY: Final = "command/"


class _Noted(BaseModel):
    at: float
    until: float
    """When the same call is meant anew. Both are epoch seconds."""
    copy_id: str
    session: str
    name: str
    call: str
    """A digest of it."""
    is_taken: bool = False
    """Whether the agent took it."""

    def is_lately(self) -> bool:
        return 0 < self.until - time.time() <= REMEMBERED_FOR


class KeptCommands:
    """The commands that one copy of the server runs, for the copies after it. `journal`: None keeps none."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._copy_id = secrets.token_hex(8)

    async def run(self, call: Call, session_id: str, name: str, running: Awaitable[str]) -> str:
        """Note a command, and return what `running` it returns. Raises what that does."""
        now = time.time()
        noted = _Noted(
            at=now,
            until=now + REMEMBERED_FOR,
            copy_id=self._copy_id,
            session=session_id,
            name=name,
            call=_digest(call),
        )
        self._set(call.instance, session_id, noted)
        try:
            prompt_id = await running
        except InstanceError as error:
            if not error.is_doubtful:
                self._change(call.instance, session_id, None)
            raise
        self._change(call.instance, session_id, REMEMBERED_FOR)
        return prompt_id

    @contextmanager
    def answering(self, instance: str, session_id: str) -> Iterator[None]:
        """Take that its caller is told how it stands; one that goes away meanwhile is told nothing."""
        try:
            yield
        except Exception:
            self._change(instance, session_id, None)
            raise
        self.answered(instance, session_id)

    def answered(self, instance: str, session_id: str) -> None:
        """Take that its caller is told that it runs or did; the server may end before the answer is on its way."""
        self._change(instance, session_id, ANSWERED_FOR)

    def taken_before(self, call: Call) -> str:
        """Return the session in which the same call to another copy runs a command; empty: there was none lately.

        Raises:
            Refused: there was, and what became of it is not known. It is refused once.
        """
        values = {} if self._journal is None else self._journal.states(f"{_KEY}{call.instance}/")
        for noted in filter(None, map(_parsed, values.values())):
            if noted.call != _digest(call) or noted.copy_id == self._copy_id or not noted.is_lately():
                continue
            if noted.is_taken:
                return noted.session
            self.told(call.instance, noted.session)
            raise Refused(
                f"{_says(noted)}. It was not run again: use `read` on session {noted.session} first; the same call "
                "once more runs it anew"
            )
        return ""

    def unknown(self, instance: str, session_id: str) -> str:
        """Say that it is not known what became of a command in this session; empty if none is."""
        noted = self._read(instance, session_id)
        return _says(noted) if noted and noted.copy_id != self._copy_id and not noted.is_taken else ""

    def told(self, instance: str, session_id: str) -> None:
        """Forget that, as a person was told."""
        if self.unknown(instance, session_id):
            self._set(instance, session_id, None)

    def _change(self, instance: str, session_id: str, more: float | None) -> None:
        """Note that the agent took a command of this copy, and count it for `more` seconds; None: forget it."""
        noted = self._read(instance, session_id)
        if noted is None or noted.copy_id != self._copy_id:
            return
        taken = None
        if more is not None:
            taken = noted.model_copy(update={"is_taken": True, "until": time.time() + more})
        self._set(instance, session_id, taken)

    def _read(self, instance: str, session_id: str) -> _Noted | None:
        return None if self._journal is None else _parsed(self._journal.state(_key(instance, session_id)))

    def _set(self, instance: str, session_id: str, noted: _Noted | None) -> None:
        if self._journal is not None and is_id(session_id):
            self._journal.set_state(_key(instance, session_id), noted and noted.model_dump())


def _key(instance: str, session_id: str) -> str:
    return f"{_KEY}{instance}/{session_id}"


def _digest(call: Call) -> str:
    return hashlib.sha256(repr(call).encode()).hexdigest()[:32]


def _says(noted: _Noted) -> str:
    return (
        f"/{one_line(noted.name, 60)} was being sent here when a server ended ({moment_text(noted.at)}), and it is "
        "not known whether it ran"
    )


def _parsed(value: object) -> _Noted | None:
    try:
        return None if value is None else _Noted.model_validate(value)
    except ValidationError:
        return None  # of a later version
