"""Asks that are decided on a page: settled as they stood there, or waited for."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from opencode_common.text import one_line
from opencode_fleet.answers import REJECT
from opencode_fleet.errors import InstanceError, Refused
from opencode_fleet.settling import RELEASED, Settler, unsent_reason
from opencode_fleet.turn import LOOK_INTERVAL

if TYPE_CHECKING:
    from opencode_fleet.answers import Settlement
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Outcome
    from opencode_fleet.settling import IsSeen, OnText
    from opencode_fleet.turn import Turn

_log = logging.getLogger(__name__)


class Decider(Settler):
    """A settler for chats and for a page beside them."""

    async def decide(
        self, instance: Instance, ask_id: str, answer: str | list[str], is_same: IsSeen, *, may_prompt: bool
    ) -> Settlement:
        """Settle one ask if it is what the person had before them, and return how; its turn goes on by itself.

        `is_same` tells whether it is. Otherwise it is not even rejected. A reason that the agent would lose is sent
        when the turn has ended.

        Raises:
            Refused: see `reply`, or the ask is another by now; nothing was settled.
            InstanceError: it may be `is_doubtful`.
        """
        if (instance.name, ask_id) in self._released:
            raise Refused(f"it needed no answer: {RELEASED}")
        ask = await self.open_ask(instance, ask_id)
        if not is_same(ask):
            raise Refused("it has changed since it was shown; look at it anew and decide then. Nothing was settled")
        settlement = self._settlement(instance, ask, answer, is_same, may_prompt=may_prompt)
        await asyncio.shield(self._background.start(self._settle_alone(instance, ask, settlement)))
        return settlement

    async def _settle_alone(self, instance: Instance, ask: Ask, settlement: Settlement) -> None:
        if not unsent_reason(instance, [settlement]):
            await self._settle_and_look(instance, ask, settlement)
            return
        root = instance.state.root_of(ask.session_id)
        (turn,) = await self._turns(instance, [root], _to_nobody)
        with ExitStack() as listening:
            listening.enter_context(instance.listening(turn.hear))
            await self._settle_and_look(instance, ask, settlement)
            self._background.start(self._tell_reason(instance, turn, root, settlement, listening.pop_all()))

    async def _tell_reason(
        self, instance: Instance, turn: Turn, root: str, settlement: Settlement, listening: ExitStack
    ) -> None:
        with listening:
            outcome = await self._followed(instance, turn, root, [settlement], _to_nobody)
        if outcome.note:
            _log.warning("%s, session %s: %s", one_line(instance.name, 64), root, one_line(outcome.note, 300))

    async def settled_there(self, instance: Instance, ask_id: str, on_text: OnText) -> Outcome | Ask:
        """Wait until somebody settled an ask elsewhere, and follow its turn; the ask, if nobody did in that time.

        Raises:
            NotOpen: no such ask is open (any more).
        """
        ask = await self.open_ask(instance, ask_id)
        until = time.monotonic() + self._timeout
        root = instance.state.root_of(ask.session_id)
        (turn,) = await self._turns(instance, [root], on_text)
        news = asyncio.Event()
        with instance.listening(turn.hear), instance.listening(lambda _event: news.set()):
            while ask.id in {each.id for each in instance.state.pending_asks()}:
                left = until - time.monotonic()
                if left <= 0:
                    return ask
                try:
                    async with asyncio.timeout(min(left, LOOK_INTERVAL)):
                        await news.wait()
                except TimeoutError:
                    # That it was settled may have been lost.
                    with suppress(InstanceError):
                        await instance.refresh()
                news.clear()
            decision = self._decisions.settled(instance.name, ask.id) if self._decisions is not None else None
            if REJECT.decision in {instance.state.settled_how.get(ask.id), decision and decision.how}:
                turn.refuse()
            return await turn.follow(max(0.0, until - time.monotonic()))


async def _to_nobody(_text: str) -> None:
    """Tell nobody what an agent writes."""
