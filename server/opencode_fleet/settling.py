"""Settling what an agent asks: surely, and each ask once, as a person decided it of what they saw."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import ExitStack, suppress
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self

from opencode_common.text import one_line
from opencode_fleet.agent import Capability
from opencode_fleet.agents.parallel import in_parallel
from opencode_fleet.answers import REJECT, settlement_of
from opencode_fleet.decisions import Decision
from opencode_fleet.errors import FleetError, InstanceError, NotFound, NotOpen, Refused
from opencode_fleet.model import Permission, Prompt
from opencode_fleet.turn import RECORD_WITHIN, Turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from opencode_fleet.answers import Settlement
    from opencode_fleet.background import Background
    from opencode_fleet.decisions import Decisions
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Message, Outcome

    OnText = Callable[[str], Awaitable[None]]
    IsSeen = Callable[[Ask], bool]
    Send = Callable[[Instance, str, str | None, OnText], Awaitable[Outcome]]

MAX_RELEASED: Final = 1_000
RELEASED = "an `always` that was given a moment before released it too"


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one ask, in our words; `ask_id` is as it was given."""

    ask_id: str
    result: Literal["settled", "released", "refused", "elsewhere"]
    says: str


@dataclass(frozen=True, slots=True)
class Replies:
    """What became of several asks, and how the turns stand that waited for them."""

    settled: tuple[Settled, ...]
    outcomes: tuple[Outcome, ...]


class _Told(NamedTuple):
    """What became of one ask, and what the agent was told of it; None: nothing."""

    row: Settled
    settlement: Settlement | None = None


class Settler:
    """Settles the asks of a fleet's instances. Times are in seconds."""

    def __init__(self, timeout: float, background: Background, send: Send, decisions: Decisions | None) -> None:
        """`send`: how a reason that the agent would lose is sent as a message.

        `decisions` hears of each before the agent is told, and of one that surely was not taken after all.
        """
        self._timeout = timeout
        self._background = background
        self._send = send
        self._decisions = decisions
        self._login = ""
        self._no_always = ""
        self._released: OrderedDict[tuple[str, str], str] = OrderedDict()
        """Asks that an `always` from here released besides, with their root sessions."""

    def acting_for(self, login: str, no_always: str = "") -> Self:
        """Return the settler as somebody uses it: what they decide is noted as theirs.

        `no_always`: why they may not say `always`, and the next step; empty: they may.
        """
        own = copy(self)
        own._login, own._no_always = login, no_always  # noqa: SLF001 - of the same class
        return own

    async def asks(self, instance: Instance) -> list[Ask]:
        """Return what the instance waits for right now, fetched anew.

        Raises:
            InstanceError: it did not answer.
        """
        await instance.refresh()
        return instance.state.pending_asks()

    async def open_ask(self, instance: Instance, ask_id: str) -> Ask:
        """Return an ask that waits right now.

        Raises:
            NotOpen: no such ask is open (any more).
        """
        ask_id = ask_id.strip()
        found = next((ask for ask in await self.asks(instance) if ask.id == ask_id), None)
        if found is not None:
            return found
        told = self._settled_by(instance, ask_id) or "not (any more)"
        raise NotOpen(instance.quoted, ask_id, f"{told}; `reply` without `ask` lists what it waits for")

    async def reply(
        self,
        instance: Instance,
        ask_id: str,
        answer: str | list[str],
        on_text: OnText,
        is_seen: IsSeen,
        *,
        may_prompt: bool,
    ) -> Outcome:
        """Settle one ask and follow the turn that waits for it.

        `is_seen` tells whether the person had the whole of the ask, as it is now; else it can only be rejected.
        `may_prompt` tells whether the person may send messages, which a reason can become.

        Raises:
            Refused: no such ask is open (any more), it was not seen, the answer does not fit it, or its reason would
                be a message; nothing was settled.
        """
        released = self._released.get((instance.name, ask_id.strip()))
        if released is not None:
            (turn,) = await self._turns(instance, [released], on_text)
            with instance.listening(turn.hear):
                outcome = await turn.follow(self._timeout)
            return replace(outcome, note=f"that ask needed no answer: {RELEASED}")
        ask = await self.open_ask(instance, ask_id)
        settlement = self._settlement(instance, ask, answer, is_seen, may_prompt=may_prompt)
        root = instance.state.root_of(ask.session_id)
        (turn,) = await self._turns(instance, [root], on_text)
        with instance.listening(turn.hear):
            # Shielded: a person's word must not be lost because their client went away.
            await asyncio.shield(self._background.start(self._settle_and_look(instance, ask, settlement)))
            return await self._followed(instance, turn, root, [settlement], on_text)

    async def reply_to_several(
        self,
        instance: Instance,
        ask_ids: Sequence[str],
        answer: str | list[str],
        on_text: OnText,
        is_seen: IsSeen,
        *,
        may_prompt: bool,
    ) -> Replies:
        """Settle each of the asks with the same answer, then follow the turns that waited for them, once.

        What becomes of one keeps no other from being settled. When one of the turns needs the person again, the
        others are followed no longer: they go on, and nobody waits in vain for an answer that has to come first.

        Raises:
            InstanceError: the instance did not answer at all; nothing was settled.
        """
        found = {ask.id: ask for ask in await self.asks(instance)}
        wanted = list(dict.fromkeys(ask_id.strip() for ask_id in ask_ids))
        roots = {each: instance.state.root_of(found[each].session_id) for each in wanted if each in found}
        different = dict.fromkeys(roots.values())
        turns = dict(zip(different, await self._turns(instance, different, on_text), strict=True))
        with ExitStack() as listening:
            for turn in turns.values():
                listening.enter_context(instance.listening(turn.hear))
            told: list[_Told] = []
            work = self._settle_each(
                instance, [(each, found.get(each)) for each in wanted], answer, is_seen, told, may_prompt=may_prompt
            )
            await asyncio.shield(self._background.start(work))
            settlements: dict[str, list[Settlement]] = {}
            for row, settlement in told:
                if row.result in {"settled", "released"}:
                    settlements.setdefault(roots[row.ask_id], []).extend([settlement] if settlement else [])

            async def follow(root: str) -> Outcome:
                outcome = await self._followed(instance, turns[root], root, settlements[root], on_text)
                if outcome.asks:
                    for other, given in settlements.items():
                        # A reason that is still to be sent waits for the end of its turn.
                        if not unsent_reason(instance, given):
                            turns[other].leave()
                return outcome

            followed = map(follow, settlements)
            return Replies(tuple(row for row, _ in told), tuple(await asyncio.gather(*followed)))

    async def settle(self, instance: Instance, ask: Ask, settlement: Settlement) -> None:
        """Tell the agent. Raises `Refused`: somebody else settled it meanwhile."""
        before = self._decisions.noted(instance.name, ask.id) if self._decisions is not None else None
        self._note(instance, ask, Decision(settlement.decision, self._login))
        try:
            await _tell(instance, ask, settlement)
        except FleetError as error:
            if not error.is_doubtful:
                # Another copy of the server may have been faster: then it was its caller's decision.
                self._note(instance, ask, before)
            if not isinstance(error, NotFound):
                raise
            how = instance.state.settled_how.get(ask.id, "")
            raise Refused(
                f"it was settled by somebody else meanwhile{self._told(instance, ask.id, how)}; see `read`"
            ) from None
        instance.state.settled(ask.id)

    def _settlement(
        self, instance: Instance, ask: Ask, answer: str | list[str], is_seen: IsSeen, *, may_prompt: bool
    ) -> Settlement:
        """Return what the answer means for the ask.

        Raises:
            Refused: it does not fit, is not theirs to give, or the ask was not seen whole.
        """
        settlement = settlement_of(ask, answer, instance)
        if settlement.decision != REJECT.decision and not is_seen(ask):
            raise Refused(
                "it was not shown whole, and nothing is approved unseen. Call `reply` with `ask` alone, "
                "show the person what comes, and then answer; `reject` is always possible. Nothing was settled"
            )
        if settlement.decision == "always" and self._no_always:
            raise Refused(f"{self._no_always}. Nothing was settled")
        if settlement.reason and not may_prompt and not instance.can(Capability.REASONS):
            raise Refused(
                f"the reason would be sent to {instance.quoted} as a message, which needs the capability drive; "
                "answer `reject` without a reason. Nothing was settled"
            )
        return settlement

    def _note(self, instance: Instance, ask: Ask, decision: Decision | None) -> None:
        if self._decisions is not None:
            self._decisions.note(instance.name, ask.id, decision)

    def _settled_by(self, instance: Instance, ask_id: str) -> str:
        """Say that somebody else settled an ask, how, and who as far as known; empty where even how is not."""
        how = instance.state.settled_how.get(ask_id, "")
        return f"it was settled by somebody else{self._told(instance, ask_id, how)}" if how else ""

    def _told(self, instance: Instance, ask_id: str, how: str) -> str:
        """Return how an ask was settled and by which login, in brackets; empty where neither is known."""
        login = self._decisions.login(instance.name, ask_id) if self._decisions is not None else ""
        known = [one_line(how, 20)] if how else []
        known += [f"by {login}"] if login else []
        return f" ({', '.join(known)})" if known else ""

    # -- several -------------------------------------------------------------------------------------------------

    async def _settle_each(
        self,
        instance: Instance,
        asks: list[tuple[str, Ask | None]],
        answer: str | list[str],
        is_seen: IsSeen,
        told: list[_Told],
        *,
        may_prompt: bool,
    ) -> None:
        for ask_id, ask in asks:
            told.append(await self._settled(instance, ask_id, ask, answer, is_seen, may_prompt=may_prompt))

    async def _settled(
        self,
        instance: Instance,
        ask_id: str,
        ask: Ask | None,
        answer: str | list[str],
        is_seen: IsSeen,
        *,
        may_prompt: bool,
    ) -> _Told:
        if (instance.name, ask_id) in self._released and ask is not None:
            return _Told(Settled(ask_id, "released", RELEASED))
        if ask is None or all(each.id != ask_id for each in instance.state.pending_asks()):
            says = self._settled_by(instance, ask_id) or "it is not open (any more)"
            return _Told(Settled(one_line(ask_id, 80), "elsewhere", says))
        try:
            settlement = self._settlement(instance, ask, answer, is_seen, may_prompt=may_prompt)
            await self._settle_and_look(instance, ask, settlement)
        except (Refused, InstanceError) as error:
            return _Told(Settled(ask_id, "refused", str(error)))
        return _Told(Settled(ask_id, "settled", settlement.decision), settlement)

    async def _settle_and_look(self, instance: Instance, ask: Ask, settlement: Settlement) -> None:
        before = instance.state.pending_asks()
        await self.settle(instance, ask, settlement)
        # It may settle other asks too, and their own notices may come later.
        with suppress(InstanceError):
            await instance.refresh()
        if settlement.decision == "always":
            self._note_released(instance, ask, before)

    def _note_released(self, instance: Instance, settled: Ask, before: list[Ask]) -> None:
        left = {ask.id for ask in instance.state.pending_asks()}
        for ask in before:
            how = instance.state.settled_how.get(ask.id, "always")
            if ask.id != settled.id and ask.id not in left and isinstance(ask, Permission) and how == "always":
                self._released[instance.name, ask.id] = instance.state.root_of(ask.session_id)
        while len(self._released) > MAX_RELEASED:
            self._released.popitem(last=False)

    # -- turns ---------------------------------------------------------------------------------------------------

    async def _turns(self, instance: Instance, roots: Iterable[str], on_text: OnText) -> list[Turn]:
        """Return the turns that run in these sessions, in order."""
        deadline = asyncio.get_running_loop().time() + RECORD_WITHIN

        async def turn(root: str) -> Turn:
            prompt = Prompt(root, await self._current_prompt(instance, root, deadline), "")
            return Turn(instance, prompt, on_text=on_text, running=True)

        return await in_parallel(roots, turn)

    async def _followed(
        self, instance: Instance, turn: Turn, root: str, given: Sequence[Settlement], on_text: OnText
    ) -> Outcome:
        """Follow a turn of which the asks were settled so, and send the reason that its agent lost."""
        if any(each.decision == REJECT.decision for each in given):
            turn.refuse()
        outcome = await turn.follow(self._timeout)
        reason = unsent_reason(instance, given)
        if not reason:
            return outcome
        if outcome.result not in {"done", "failed"}:
            return replace(outcome, note="the reason was not told to the agent, as the turn did not end; send it")
        try:
            return await self._send(instance, reason, root, on_text)
        except FleetError as error:
            # What was settled must be told all the same.
            return replace(outcome, note=f"the reason was not told to the agent: {error}")

    async def _current_prompt(self, instance: Instance, root: str, deadline: float) -> str:
        """Return the id of the session's newest prompt; empty if it cannot be had at once: the answer comes first.

        `deadline`: seconds by the loop's clock.
        """
        messages: list[Message] = []
        with suppress(InstanceError, TimeoutError):
            async with asyncio.timeout_at(deadline):
                messages = await instance.agent.messages(
                    root, 50, until=lambda found: any(m.role == "user" for m in found)
                )
        prompts = [message.id for message in messages if message.role == "user"]
        return prompts[-1] if prompts else ""


def unsent_reason(instance: Instance, given: Sequence[Settlement]) -> str:
    """Return the reason of a rejection that the agent cannot be told with it; empty where there is none."""
    return "" if instance.can(Capability.REASONS) else next((each.reason for each in given if each.reason), "")


async def _tell(instance: Instance, ask: Ask, settlement: Settlement) -> None:
    if isinstance(ask, Permission):
        await instance.agent.reply(ask, settlement.decision, settlement.reason or None)
    elif settlement.decision == REJECT.decision:
        await instance.agent.decline(ask)
    else:
        await instance.agent.answer(ask, settlement.answers)
