"""What a person can have an instance do: send it a message, stop it, settle what it asks.

How a message gets there is in `sending`, how asks are settled in `settling`, which session it is for in `sessions`.

All of it is safe to interrupt: the agent's work goes on when a caller goes away.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING

from opencode_common.text import quote
from opencode_fleet.answers import REJECT
from opencode_fleet.background import Background
from opencode_fleet.commands import command_of, is_command
from opencode_fleet.deciding import Decider
from opencode_fleet.earlier import Earlier
from opencode_fleet.errors import InstanceError, Refused
from opencode_fleet.sending import AS_IT_IS, Sender
from opencode_fleet.sessions import NEW_SESSION, Sessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.answers import Settlement
    from opencode_fleet.choices import Manner
    from opencode_fleet.decisions import Decisions
    from opencode_fleet.errors import FleetError
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask, Outcome
    from opencode_fleet.sending import OnText
    from opencode_fleet.settling import IsSeen, Replies
    from opencode_journal.journal import Journal

STOP_TIMEOUT = 15.0
STOP_LOOK_INTERVAL = 0.25
STOP_QUIET_LOOKS = 2
"""Looks in a row that must find it idle: a parent may begin one more step when its subagent is stopped."""


class Driver:
    """Acts on the instances of a fleet. Times are in seconds."""

    def __init__(
        self, fleet: Fleet, timeout: float, decisions: Decisions | None = None, journal: Journal | None = None
    ) -> None:
        """`decisions`: see `Settler`. `journal`: keeps calls for a server after this one, if there is one."""
        self.sessions = Sessions(fleet)
        self._background = Background()
        self._sender = Sender(self.sessions, timeout, self._background, Earlier(journal))
        self._settler = Decider(timeout, self._background, self._sender.send, decisions)

    def acting_for(self, login: str, no_always: str = "") -> Driver:
        """Return the driver as somebody uses it; see `Settler.acting_for`."""
        own = copy(self)
        own._settler = self._settler.acting_for(login, no_always)  # noqa: SLF001 - of the same class
        return own

    @property
    def sender(self) -> Sender:
        """What posts its messages: a session takes one at a time, whoever sends it."""
        return self._sender

    def unknown(self, instance: Instance, session_id: str) -> str:
        """Say that it is not known what became of a command that a server sent there and then ended; else empty."""
        return self._sender.earlier.commands.unknown(instance.name, session_id)

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
    ) -> list[Outcome | FleetError]:
        """Send each of them a message and wait for no turn; see `Sender.send_to_all`. Raises `Refused`: a command."""
        if is_command(message):
            raise Refused("a command goes to one instance at a time; nothing was sent")
        return await self._sender.send_to_all(instances, message, wanted, manner)

    # -- stopping ------------------------------------------------------------------------------------------------

    async def stop(self, instance: Instance, wanted: str | None) -> str | None:
        """Stop what runs and confirm that it stopped; return the stopped session's id, None if nothing ran.

        Raises:
            Refused: several sessions run and `wanted` names none, it is another OpenCode's, or it still runs.
        """
        await instance.refresh()
        roots = instance.state.busy_roots()
        if wanted and wanted != NEW_SESSION:
            session = await self.sessions.named(instance, wanted)
            root = instance.state.root_of(session.id)
            if root not in roots:
                await self.sessions.check_ours(instance, root)
                return None
            roots = [root]
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
                await self._settler.settle(instance, ask, REJECT)

    def _titled(self, instance: Instance, session_id: str) -> str:
        title = instance.state.title(session_id)
        return f"{session_id} ({quote(title, 60)})" if title else session_id

    # -- settling asks ---------------------------------------------------------------------------------------------

    async def asks(self, instance: Instance) -> list[Ask]:
        """Return what the instance waits for; see `Settler.asks`."""
        return await self._settler.asks(instance)

    async def open_ask(self, instance: Instance, ask_id: str) -> Ask:
        """Return an ask that waits right now; see `Settler.open_ask`."""
        return await self._settler.open_ask(instance, ask_id)

    async def reply(
        self,
        instance: Instance,
        ask_id: str,
        answer: str | list[str],
        on_text: OnText,
        is_seen: IsSeen,
        *,
        may_prompt: bool = True,
    ) -> Outcome:
        """Settle one ask and follow its turn; see `Settler.reply`."""
        return await self._settler.reply(instance, ask_id, answer, on_text, is_seen, may_prompt=may_prompt)

    async def decide(
        self, instance: Instance, ask_id: str, answer: str | list[str], is_same: IsSeen, *, may_prompt: bool
    ) -> Settlement:
        """Settle one ask as it was shown, and follow no turn; see `Decider.decide`."""
        return await self._settler.decide(instance, ask_id, answer, is_same, may_prompt=may_prompt)

    async def settled_there(self, instance: Instance, ask_id: str, on_text: OnText) -> Outcome | Ask:
        """Wait until somebody settled one ask elsewhere, and follow its turn; see `Decider.settled_there`."""
        return await self._settler.settled_there(instance, ask_id, on_text)

    async def reply_to_several(
        self,
        instance: Instance,
        ask_ids: Sequence[str],
        answer: str | list[str],
        on_text: OnText,
        is_seen: IsSeen,
        *,
        may_prompt: bool = True,
    ) -> Replies:
        """Settle several asks and follow their turns, once; see `Settler.reply_to_several`."""
        return await self._settler.reply_to_several(
            instance, ask_ids, answer, on_text, is_seen, may_prompt=may_prompt
        )
