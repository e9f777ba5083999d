"""Calls of `send` that a server had not answered when it ended: the same call to the next one sends nothing again.

Each is noted in the journal before its message is posted, and removed when its caller has been told how it ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ValidationError

from opencode_fleet.errors import NotFound
from opencode_fleet.model import Prompt
from opencode_fleet.posting import arrived_before
from opencode_fleet.repeats import REMEMBERED_FOR, Sent

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.repeats import Call
    from opencode_journal.journal import Journal

_KEY: Final = "call/"


class _Kept(BaseModel):
    at: float
    copy_id: str
    session: str
    prompt: str
    agent: str = ""
    model: str = ""


class KeptCalls:
    """The calls that one copy of the server is answering, for the copies after it. `journal`: None keeps none."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._copy_id = secrets.token_hex(8)

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

    def forget(self, call: Call) -> None:
        """Note that its caller is told how it ended."""
        if self._journal is not None:
            self._journal.set_state(_key(call), None)

    async def sent(self, instance: Instance, call: Call) -> Sent | None:
        """Return what the same call to another copy has sent lately, and did not tell of; None if nothing arrived.

        Raises:
            InstanceError: whether it arrived cannot be found out; nothing was sent now.
        """
        kept = self._kept(call)
        if kept is None:
            return None
        try:
            if not await arrived_before(instance, kept.session, kept.prompt):
                return None
        except NotFound:
            return None  # with its session
        posted = asyncio.get_running_loop().create_future()
        posted.set_result(None)
        return Sent(_prompt(kept, call), posted)

    def prompt(self, call: Call) -> Prompt | None:
        """Return what the same call to another copy was about to post lately, without asking whether it arrived."""
        kept = self._kept(call)
        return None if kept is None else _prompt(kept, call)

    def _kept(self, call: Call) -> _Kept | None:
        value = None if self._journal is None else self._journal.state(_key(call))
        if value is None:
            return None
        try:
            kept = _Kept.model_validate(value)
        except ValidationError:
            return None  # of a later version
        # What this copy is answering itself is another person's call, or one that `Repeats` knows of.
        is_lately = abs(time.time() - kept.at) < REMEMBERED_FOR
        return kept if is_lately and kept.copy_id != self._copy_id else None


def _prompt(kept: _Kept, call: Call) -> Prompt:
    return Prompt(kept.session, kept.prompt, call.message, kept.agent, kept.model)


def _key(call: Call) -> str:
    """Return what the call is kept under: it tells calls apart and says nothing of their words."""
    return _KEY + hashlib.sha256(repr(call).encode()).hexdigest()[:32]
