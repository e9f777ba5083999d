"""What a person's chat client does: send, watch by a cursor, decide what was shown, repeat a call that was cut."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from support.chaos.ledger import ACCEPTED, UNKNOWN
from support.chat.mortal_server import Answer, ServerDied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from random import Random

    from support.chaos.ledger import Ledger
    from support.chat.mortal_server import MortalServer

    Changing = Callable[[str, str], None]

REPEATS_OUTLIVE_A_SERVER: Final = True
"""Whether the same `send` again is one message although the server died in between.

Else the person looks with `read` what became of it before they send it again.
"""
_PAUSE: Final = 0.05
"""Seconds between two tries of what cannot be had now; each later one is longer, up to `_LONGEST_PAUSE`."""
_LONGEST_PAUSE: Final = 0.6
_TRIES: Final = 2_000
WAIT_SECONDS: Final = 5


@dataclass
class Person:
    """Has several servers, any of which serves; keeps what they were told in a ledger."""

    servers: Sequence[MortalServer]
    ledger: Ledger
    random: Random
    changing: Changing | None = None
    """Has an ask be about something else from now on, given its machine and id."""
    whens: Sequence[str] = ("now",)
    """At which moments messages are to come, one drawn for each: what else `send` has as its `when` may join."""
    to_decide: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    deciding: set[str] = field(default_factory=set)
    """The asks that somebody is about to decide or has decided."""

    # -- sending -------------------------------------------------------------------------------------------------

    async def send(self, machine: str, session: str, text: str) -> None:
        """Send a message until it is told that it went, or that nobody knows."""
        # The same each time: else it is another call.
        when = self.random.choice(self.whens)
        for number in range(_TRIES):
            told = await self._try_to_send(machine, session, text, when)
            if told:
                self.ledger.sent[machine, text] = told
                self.ledger.turns[machine, session] += told == ACCEPTED
                return
            await self._pause(number)
        raise AssertionError(f"{text!r} could not be sent to {machine}")

    async def _try_to_send(self, machine: str, session: str, text: str, when: str) -> str:
        """Return what is told of it; empty: it was surely not sent."""
        try:
            answer = await self._any().call("send", instance=machine, session=session, message=text, when=when)
        except ServerDied:
            self.ledger.outcomes["send: server died"] += 1
            if REPEATS_OUTLIVE_A_SERVER:
                return ""
            return ACCEPTED if await self._is_there(machine, session, text) else ""
        if not answer.is_error:
            self.ledger.outcomes[f"send: {answer.structured['result']}"] += 1
            return ACCEPTED
        if "was accepted before" in answer.text:
            # The call that accepted it was cut off; this message has ended since.
            self.ledger.outcomes["send: accepted before"] += 1
            return ACCEPTED
        if "may have arrived" in answer.text:
            self.ledger.outcomes["send: unknown"] += 1
            return UNKNOWN
        if not _is_unsent(answer) and not _is_absent(answer):
            self.ledger.unclear.append(answer.text)
        self.ledger.outcomes["send: busy" if "is busy" in answer.text else "send: not sent"] += 1
        return ""

    async def _is_there(self, machine: str, session: str, text: str) -> bool:
        """Look whether a message arrived, as one does who cannot repeat a call safely."""
        # What the dead server had put on its way has arrived by then.
        await asyncio.sleep(0.5)
        answer = await self._until_had(lambda server: server.call("read", instance=machine, session=session))
        return any(text == row["text"].strip() for row in answer.structured["messages"])

    # -- watching ------------------------------------------------------------------------------------------------

    async def watch(self, name: str, server: MortalServer, is_over: asyncio.Event) -> None:
        """Follow all that happens by a cursor; give asks to whoever decides."""
        cursor: str | None = None
        while True:
            done = is_over.is_set()
            try:
                answer = await server.call("wait", cursor=cursor, seconds=1 if done else WAIT_SECONDS)
            except ServerDied:
                continue
            if answer.is_error:
                self.ledger.outcomes[f"wait: {answer.text[:60]}"] += 1
                cursor = None
                continue
            cursor = answer.structured["cursor"]
            for row in answer.structured["asks"]:
                self.ledger.seen.add(row["id"])
                if row["id"] not in self.deciding:
                    self.deciding.add(row["id"])
                    self.to_decide.put_nowait(row)
            for row in answer.structured["ended"]:
                self.ledger.end(name, row)
            if done and not answer.structured["asks"] and not answer.structured["ended"]:
                return

    # -- deciding ------------------------------------------------------------------------------------------------

    async def decide(self) -> None:
        """Decide all asks that watchers tell of, for ever."""
        while True:
            row = await self.to_decide.get()
            # Of one whose machine is away only a few words are known.
            shown = row["handle"], row["summary"]
            shown = await self._as_it_is(row["instance"], row["id"]) if row.get("away") else shown
            await self._decide(row["instance"], row["id"], *shown)

    async def _decide(self, machine: str, ask: str, handle: str, said: str) -> None:
        """Decide on what was shown under a handle, whatever others are shown meanwhile."""
        decision = self.random.choice(("once", "once", "reject"))
        if decision == "once" and self.changing is not None and self.random.random() < 0.2:
            self.changing(machine, ask)
        for number in range(_TRIES):
            # Noted before: what a call that is cut off meant counts too.
            self.ledger.meant.setdefault(ask, set()).add((said, decision))
            try:
                answer = await self._any().call("reply", instance=machine, ask=handle, answer=decision)
            except ServerDied:
                self.ledger.outcomes["reply: server died"] += 1
                continue
            if not answer.is_error:
                self.ledger.outcomes[f"reply: {answer.structured['result']}"] += 1
                return
            if "not shown whole" in answer.text:
                self.ledger.outcomes["reply: changed"] += 1
                handle, said = await self._as_it_is(machine, ask)
            elif _is_settled(answer):
                self.ledger.outcomes["reply: settled before"] += 1
                return
            else:
                self.ledger.outcomes["reply: not now"] += 1
                await self._pause(number)
        raise AssertionError(f"{ask} of {machine} could not be settled")

    async def _as_it_is(self, machine: str, ask: str) -> tuple[str, str]:
        """Have an ask shown; return what it is called and says, or its id and nothing if it is over."""
        answer = await self._until_had(lambda server: server.call("reply", instance=machine, ask=ask), _is_settled)
        if answer.is_error:
            return ask, ""
        (row,) = answer.structured["asks"]
        return str(row["handle"]), str(row["summary"])

    # -- any server ----------------------------------------------------------------------------------------------

    def _any(self) -> MortalServer:
        return self.random.choice(self.servers)

    async def _pause(self, tries: int) -> None:
        await asyncio.sleep(min(_LONGEST_PAUSE, _PAUSE * 1.5 ** min(tries, 20)) * self.random.uniform(0.5, 1.5))

    async def _until_had(
        self, call: Callable[[MortalServer], Awaitable[Answer]], enough: Callable[[Answer], bool] = lambda _: False
    ) -> Answer:
        """Make a call that changes nothing until it is answered, or its error is `enough`."""
        for number in range(_TRIES):
            try:
                answer = await call(self._any())
            except ServerDied:
                continue
            if not answer.is_error or enough(answer):
                return answer
            await self._pause(number)
        raise AssertionError(f"never answered: {answer.text}")


def _is_settled(answer: Answer) -> bool:
    return "does not wait for" in answer.text or "was settled by somebody else" in answer.text


def _is_unsent(answer: Answer) -> bool:
    return any(words in answer.text for words in ("othing was sent", "nothing sent"))


def _is_absent(answer: Answer) -> bool:
    """Tell whether the machine could not be reached at all."""
    return any(words in answer.text for words in ("is offline", "no instance", "not connected"))
