"""Calls that were cut off, so that the same call again takes up their turn instead of starting another."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from opencode_fleet.choices import Manner
from opencode_fleet.errors import FleetError

if TYPE_CHECKING:
    from opencode_fleet.model import Prompt

REMEMBERED_FOR = 600.0
"""Seconds after which the same words are meant anew: chat clients repeat a call within a minute or two."""
MAX_REMEMBERED = 200


class Call(NamedTuple):
    """What makes two calls of `send` the same."""

    instance: str
    session: str | None
    message: str
    manner: Manner = Manner()


class Sent(NamedTuple):
    """What a call sent, or is sending."""

    prompt: Prompt
    post: asyncio.Future[Any]


class Repeats:
    """The calls whose callers went away before they had the answer."""

    def __init__(self) -> None:
        self._cut: OrderedDict[Call, tuple[float, Sent]] = OrderedDict()

    def cut(self, call: Call, sent: Sent) -> None:
        """Remember that the caller went away, and what was sent."""
        call = _light(call)
        self._cut[call] = time.monotonic(), sent._replace(prompt=replace(sent.prompt, files=()))
        self._cut.move_to_end(call)
        while len(self._cut) > MAX_REMEMBERED:
            self._cut.popitem(last=False)

    async def take(self, call: Call) -> Sent | None:
        """Return what the same call sent, once it is posted, if that was cut off lately; it is forgotten then.

        None: there was no such call, or its message surely did not arrive.

        Raises:
            InstanceError: it is not known whether its message arrived, as that call would have said.
        """
        sent = self._lately(call)
        self._cut.pop(_light(call), None)
        if sent is None:
            return None
        try:
            await asyncio.shield(sent.post)
        except asyncio.CancelledError:
            self.cut(call, sent)
            raise
        except FleetError as error:
            if error.is_doubtful:
                raise
            return None
        return sent

    def begun(self, call: Call) -> Prompt | None:
        """Return what the same call sent or is sending, if that was cut off lately; None: surely nothing arrived."""
        sent = self._lately(call)
        if sent is None:
            return None
        error = sent.post.exception() if sent.post.done() and not sent.post.cancelled() else None
        return None if isinstance(error, FleetError) and not error.is_doubtful else sent.prompt

    def forget(self, call: Call) -> None:
        """Forget a call, and post it no longer: somebody else brings it to its end."""
        _, sent = self._cut.pop(_light(call), (0.0, None))
        if sent is not None:
            sent.post.cancel()

    def _lately(self, call: Call) -> Sent | None:
        at, sent = self._cut.get(_light(call), (0.0, None))
        return sent if time.monotonic() - at < REMEMBERED_FOR else None


def _light(call: Call) -> Call:
    """Return a call with digests in place of its files, which may be large."""
    files = tuple(replace(file, content=sha256(file.content).digest()) for file in call.manner.files)
    return call._replace(manner=call.manner._replace(files=files))
