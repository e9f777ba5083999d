"""What became of the same call of `send` earlier, here or in another copy of the server."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opencode_fleet.errors import FleetError
from opencode_fleet.kept_calls import Before, KeptCalls
from opencode_fleet.kept_commands import KeptCommands
from opencode_fleet.own_turns import OwnTurns
from opencode_fleet.repeats import Repeats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Prompt
    from opencode_fleet.repeats import Call, Sent
    from opencode_journal.journal import Journal


class Earlier:
    """The calls whose callers may not have the answer. `journal`: None keeps none for other copies."""

    def __init__(self, journal: Journal | None) -> None:
        self._repeats = Repeats()
        self._calls = KeptCalls(journal)
        self.commands = KeptCommands(journal)
        self._turns = None if journal is None else OwnTurns(journal)

    def cut(self, call: Call, sent: Sent) -> None:
        """Note that its caller went away."""
        self._repeats.cut(call, sent)

    async def here(self, call: Call) -> Sent | None:
        """Return what it sent if it was cut off here; see `Repeats.take`."""
        return await self._repeats.take(call)

    async def command(self, call: Call) -> str:
        """Return the session in which the same call ran its command before; empty: it did not.

        Raises:
            Refused, InstanceError: it is not known whether it did.
        """
        sent = await self.here(call)
        if sent is None:
            return self.commands.taken_before(call)
        self.commands.answered(call.instance, sent.prompt.session_id)
        return sent.prompt.session_id

    def begun(self, call: Call) -> Before | None:
        """Return what it began to post lately, if that may have arrived."""
        prompt = self._repeats.begun(call)
        return Before(prompt.session_id, prompt.id) if prompt is not None else self._calls.begun(call)

    def hand_over(self, call: Call, begun: Before) -> None:
        """Leave what `begun` returned to somebody else, who looks for it before posting it again."""
        self._repeats.forget(call)
        self._calls.forget(call, begun.prompt_id)

    async def before(self, instance: Instance, call: Call) -> Before | None:
        """Return what it began to post lately. Raises `InstanceError`: whether it arrived is not known."""
        sent = await self.here(call)
        if sent is not None:
            return Before(sent.prompt.session_id, sent.prompt.id, sent)
        return await self._calls.before(instance, call)

    @contextmanager
    def answering(self, call: Call, prompt: Prompt, *, begins: bool = False) -> Iterator[None]:
        """Let other copies know of a call while its message is posted and its turn followed, and a while longer.

        `begins`: it begins a turn, whose end is to be told whoever sees it.
        """
        self._calls.keep(call, prompt)
        if begins and self._turns is not None:
            self._turns.note(call.instance, prompt.session_id, prompt.id)
        try:
            yield
        except Exception as error:
            if isinstance(error, FleetError) and not error.is_doubtful:
                self._calls.forget(call, prompt.id)
                if begins and self._turns is not None:
                    self._turns.drop(call.instance, prompt.session_id, prompt.id)
            else:
                self._calls.answered(call, prompt)
            raise
        self._calls.answered(call, prompt)
