"""What a person can have an instance do: send it a message, stop it, settle what it asks.

How a message gets there is in `sending`, which session it is for in `sessions`.

All of it is safe to interrupt: the agent's work goes on when a caller goes away.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from opencode_common.text import one_line, quote
from opencode_fleet.agent import Capability
from opencode_fleet.answers import REJECT, settlement_of
from opencode_fleet.background import Background
from opencode_fleet.commands import command_of, is_command
from opencode_fleet.errors import InstanceError, NotFound, Refused
from opencode_fleet.model import Permission, Prompt
from opencode_fleet.sending import AS_IT_IS, Sender
from opencode_fleet.sessions import NEW_SESSION, Sessions
from opencode_fleet.turn import RECORD_WITHIN, Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opencode_fleet.answers import Settlement
    from opencode_fleet.choices import Manner
    from opencode_fleet.errors import RelayError
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Message, Outcome
    from opencode_fleet.sending import OnText

STOP_TIMEOUT = 15.0
STOP_LOOK_INTERVAL = 0.25
STOP_QUIET_LOOKS = 2
"""Looks in a row that must find it idle: a parent may begin one more step when its subagent is stopped."""


class Driver:
    """Acts on the instances of a fleet. Times are in seconds."""

    def __init__(self, fleet: Fleet, timeout: float) -> None:
        self.sessions = Sessions(fleet)
        self._timeout = timeout
        self._background = Background()
        self._sender = Sender(self.sessions, timeout, self._background)

    # -- sending -------------------------------------------------------------------------------------------------

    async def send(
        self, instance: Instance, message: str, wanted: str | None, on_text: OnText, manner: Manner = AS_IT_IS
    ) -> Outcome:
        """Send a message, or run the command that it is, and follow its turn; see `Sender`."""
        command = await command_of(instance, message)
        if command is not None:
            return await self._sender.run(instance, command, wanted, on_text, manner)
        return await self._sender.send(instance, message, wanted, on_text, manner)

    async def send_to_all(
        self, instances: Sequence[Instance], message: str, wanted: str | None, manner: Manner = AS_IT_IS
    ) -> list[Outcome | RelayError]:
        """Send each of them a message and wait for no turn; see `Sender.send_to_all`. Raises `Refused`: a command."""
        if is_command(message):
            raise Refused("a command goes to one instance at a time; nothing was sent")
        return await self._sender.send_to_all(instances, message, wanted, manner)

    # -- stopping ------------------------------------------------------------------------------------------------

    async def stop(self, instance: Instance, wanted: str | None) -> str | None:
        """Stop what runs and confirm that it stopped; return the stopped session's id, None if nothing ran.

        Raises:
            Refused: several sessions run and `wanted` names none, or it still runs.
        """
        await instance.refresh()
        roots = instance.state.busy_roots()
        if wanted and wanted != NEW_SESSION:
            session = await self.sessions.named(instance, wanted)
            root = instance.state.root_of(session.id)
            roots = [root] if root in roots else []
        if not roots:
            return None
        if len(roots) > 1:
            titles = "; ".join(self._titled(instance, root) for root in roots)
            raise Refused(
                f"{instance.quoted} runs several sessions: {titles}. Say which with `session`; nothing was stopped"
            )
        await self._stop_root(instance, roots[0])
        return roots[0]

    async def _stop_root(self, instance: Instance, root: str) -> None:
        left_over = instance.state.pending_asks(root)
        quiet = 0
        give_up = time.monotonic() + STOP_TIMEOUT
        while quiet < STOP_QUIET_LOOKS:
            if instance.state.family_busy(root):
                quiet = 0
                await instance.agent.interrupt(root)
            else:
                quiet += 1
            if time.monotonic() > give_up:
                raise Refused(f"{instance.quoted} was told to stop session {root} and still runs it; try again")
            await asyncio.sleep(STOP_LOOK_INTERVAL)
            await instance.refresh()
        # OpenCode goes on listing the asks of a stopped turn; they would come up again in the next one.
        for ask in left_over:
            with suppress(InstanceError, Refused):
                await self._settle(instance, ask, REJECT)

    def _titled(self, instance: Instance, session_id: str) -> str:
        session = instance.state.sessions.get(session_id)
        return f"{session_id} ({quote(session.title, 60)})" if session else session_id

    # -- settling asks ---------------------------------------------------------------------------------------------

    async def asks(self, instance: Instance) -> list[Ask]:
        """Return what the instance waits for right now, fetched anew.

        Raises:
            InstanceError: it did not answer.
        """
        await instance.refresh()
        return instance.state.pending_asks()

    async def reply(
        self,
        instance: Instance,
        ask_id: str,
        answer: str | list[str],
        on_text: OnText,
        is_seen: Callable[[Ask], bool],
    ) -> Outcome:
        """Settle one ask and follow the turn that waits for it.

        `is_seen` tells whether the person had the whole of the ask, as it is now; else it can only be rejected.

        Raises:
            Refused: no such ask is open (any more), it was not seen, or the answer does not fit it; nothing was
                settled.
        """
        ask = await self.open_ask(instance, ask_id)
        settlement = settlement_of(ask, answer, instance)
        if settlement.decision != REJECT.decision and not is_seen(ask):
            raise Refused(
                f"{ask.id} was not shown whole, and nothing is approved unseen. Call `reply` with `ask` {ask.id} and "
                "no `answer`, show the person what comes, and then answer; `reject` is always possible. Nothing was "
                "settled"
            )
        root = instance.state.root_of(ask.session_id)
        prompt = Prompt(root, await self._current_prompt(instance, root), "")
        turn = Turn(instance, prompt, on_text=on_text, running=True, rejected=settlement.decision == "reject")
        with instance.listening(turn.hear):
            # Shielded: a person's word must not be lost because their client went away.
            await asyncio.shield(self._background.start(self._settle(instance, ask, settlement)))
            # An `always` releases other asks too, and their own notices may come later.
            with suppress(InstanceError):
                await instance.refresh()
            outcome = await turn.follow(self._timeout)
        if not settlement.reason or instance.can(Capability.REASONS):
            return outcome
        if outcome.result not in {"done", "failed"}:
            return replace(outcome, note="the reason was not told to the agent, as the turn did not end; send it")
        # This agent loses the reason of a rejection, so that it follows as a message.
        return await self._sender.send(instance, settlement.reason, root, on_text)

    async def open_ask(self, instance: Instance, ask_id: str) -> Ask:
        """Return an ask that waits right now.

        Raises:
            Refused: no such ask is open (any more).
        """
        ask_id = ask_id.strip()
        found = next((ask for ask in await self.asks(instance) if ask.id == ask_id), None)
        if found is not None:
            return found
        how = instance.state.settled_how.get(ask_id, "")
        told = f"it was settled by somebody else ({one_line(how, 20)})" if how else "not (any more)"
        raise Refused(
            f"{instance.quoted} does not wait for {one_line(ask_id, 80)!r}: {told}; `reply` without `ask` lists what "
            "it waits for"
        )

    async def _current_prompt(self, instance: Instance, root: str) -> str:
        """Return the id of the session's newest prompt; empty if it cannot be had at once: the answer comes first."""
        messages: list[Message] = []
        with suppress(InstanceError, TimeoutError):
            async with asyncio.timeout(RECORD_WITHIN):
                messages = await instance.agent.messages(
                    root, 50, until=lambda found: any(m.role == "user" for m in found)
                )
        prompts = [message.id for message in messages if message.role == "user"]
        return prompts[-1] if prompts else ""

    async def _settle(self, instance: Instance, ask: Ask, settlement: Settlement) -> None:
        try:
            if isinstance(ask, Permission):
                await instance.agent.reply(ask, settlement.decision, settlement.reason or None)
            elif settlement.decision == "reject":
                await instance.agent.decline(ask)
            else:
                await instance.agent.answer(ask, settlement.answers)
        except NotFound:
            how = instance.state.settled_how.get(ask.id, "")
            told = f" ({one_line(how, 20)})" if how else ""
            raise Refused(f"{ask.id} was settled by somebody else meanwhile{told}; see `read`") from None
        instance.state.settled(ask.id)
