"""Calls of `send` whose answer a caller may not have: the same call to another server sends nothing again.

Each is noted in the journal before its message is posted. What arrived is taken up; what did not is posted under the
id that it has already, so that it is one message wherever its first post comes out.

A call that was answered is remembered for a while: its server may have ended before the answer was on its way.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import BaseModel, ValidationError

from opencode_fleet.errors import InstanceError, NotFound
from opencode_fleet.model import Prompt
from opencode_fleet.posting import arrived_before
from opencode_fleet.repeats import REMEMBERED_FOR, Sent

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.repeats import Call
    from opencode_journal.journal import Journal

ANSWERED_FOR: Final = 120.0
"""Seconds after its answer in which the same call to another server is a repeat: clients repeat within a minute."""
MAX_ANSWERED: Final = 200
_KEY: Final = "call/"
_NOT_SEEN: Final = (
    "{error}; a call that was cut off has sent this very message before, and whether it came there cannot be seen "
    "now. Nothing was sent again: make the same call once more"
)


class _Kept(BaseModel):
    at: float
    copy_id: str
    session: str
    prompt: str
    agent: str = ""
    model: str = ""
    answered: float = 0.0
    """When its caller was told how it ended, in epoch seconds; 0: not yet."""

    def is_lately(self) -> bool:
        now = time.time()
        return abs(now - self.answered) < ANSWERED_FOR if self.answered else abs(now - self.at) < REMEMBERED_FOR


class Before(NamedTuple):
    """What the same call began to post before. `sent`: the same, if it is known to have arrived."""

    session_id: str
    prompt_id: str
    sent: Sent | None = None


class KeptCalls:
    """The calls that one copy of the server answers, for the copies after it. `journal`: None keeps none."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._copy_id = secrets.token_hex(8)
        self._answered: deque[tuple[float, str, str]] = deque()
        """When calls were answered (epoch seconds), what they are kept under, and the ids of their prompts."""

    def keep(self, call: Call, prompt: Prompt) -> None:
        """Note what a call is about to post."""
        if self._journal is not None:
            kept = _Kept(
                at=time.time(),
                copy_id=self._copy_id,
                session=prompt.session_id,
                prompt=prompt.id,
                agent=prompt.agent,
                model=prompt.model,
            )
            self._journal.set_state(_key(call), kept.model_dump())

    def answered(self, call: Call, prompt: Prompt) -> None:
        """Note that its caller is being told how it ended."""
        key, now = _key(call), time.time()
        kept = self._read(key)
        if self._journal is None or kept is None or kept.prompt != prompt.id:
            return
        self._journal.set_state(key, kept.model_copy(update={"answered": now}).model_dump())
        self._answered.append((now, key, prompt.id))
        while len(self._answered) > MAX_ANSWERED or self._answered[0][0] + ANSWERED_FOR < now:
            _, old, prompt_id = self._answered.popleft()
            self._remove(old, prompt_id)

    def forget(self, call: Call, prompt_id: str) -> None:
        """Note that nothing was sent, or that somebody else brings it to its end."""
        self._remove(_key(call), prompt_id)

    def begun(self, call: Call) -> Before | None:
        """Return what the same call to another copy began to post lately, without asking whether it arrived."""
        kept = self._kept(call)
        return None if kept is None else Before(kept.session, kept.prompt)

    async def before(self, instance: Instance, call: Call) -> Before | None:
        """Return what the same call to another copy began to post lately; None if there was none.

        Raises:
            InstanceError: whether it arrived cannot be found out; nothing was sent now.
        """
        kept = self._kept(call)
        if kept is None:
            return None
        try:
            has_arrived = await arrived_before(instance, kept.session, kept.prompt)
        except NotFound:
            return None  # with its session
        except InstanceError as error:
            error.args = (_NOT_SEEN.format(error=error),)
            error.is_doubtful = False
            raise
        if not has_arrived:
            return Before(kept.session, kept.prompt)
        posted = asyncio.get_running_loop().create_future()
        posted.set_result(None)
        prompt = Prompt(kept.session, kept.prompt, call.message, kept.agent, kept.model)
        return Before(kept.session, kept.prompt, Sent(prompt, posted))

    def _kept(self, call: Call) -> _Kept | None:
        kept = self._read(_key(call))
        # What this copy answers itself is another person's call, or one that `Repeats` knows of.
        return kept if kept is not None and kept.is_lately() and kept.copy_id != self._copy_id else None

    def _read(self, key: str) -> _Kept | None:
        value = None if self._journal is None else self._journal.state(key)
        try:
            return None if value is None else _Kept.model_validate(value)
        except ValidationError:
            return None  # of a later version

    def _remove(self, key: str, prompt_id: str) -> None:
        kept = self._read(key)
        # Unless the same words were sent anew meanwhile.
        if self._journal is not None and kept is not None and kept.prompt == prompt_id:
            self._journal.set_state(key, None)


def _key(call: Call) -> str:
    """Return what the call is kept under: it tells calls apart and says nothing of their words."""
    return _KEY + hashlib.sha256(repr(call).encode()).hexdigest()[:32]
