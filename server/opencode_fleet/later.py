"""Send a message to an instance that may be away: at once if it can take it now, else once it can."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from opencode_fleet.choices import Manner
from opencode_fleet.commands import is_command
from opencode_fleet.errors import Busy, NoSuchInstance, Refused, Unreachable, Unresponsive
from opencode_fleet.open_work import OpenWork
from opencode_fleet.outbox import Draft, KeptMessage
from opencode_fleet.repeats import Call

if TYPE_CHECKING:
    from opencode_fleet.drive import Driver
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Outcome
    from opencode_fleet.outbox import Outbox
    from opencode_fleet.sending import OnText
    from opencode_journal.journal import Journal


class LaterPlace(NamedTuple):
    """What a message for later is for."""

    name: str
    instance: Instance | None
    """None: the fleet does not know it any more, and the journal does."""


class Kept(NamedTuple):
    """A message that is kept, and why it was not sent at once."""

    message: KeptMessage
    why: str


class Later:
    """Sends and keeps messages for the instances of a fleet."""

    def __init__(self, fleet: Fleet, driver: Driver, outbox: Outbox, journal: Journal) -> None:
        self._fleet = fleet
        self._driver = driver
        self._outbox = outbox
        self._journal = journal
        self._in_hand: set[str] = set()
        """Digests of what calls are sending: a client may repeat a call while the first one goes on."""

    async def place(self, name: str) -> LaterPlace:
        """Return what `name` means: an instance that is there or was.

        Raises:
            NoSuchInstance: nothing of that name was ever seen, or several fit.
        """
        wanted = name.strip()
        known = {instance.name: instance for instance in await self._fleet.instances()}
        if wanted in known:
            return LaterPlace(wanted, known[wanted])
        # Before parts of names: one that is away must not be taken for another one that is there.
        if self._journal.knows(wanted):
            return LaterPlace(wanted, None)
        try:
            instance = await self._fleet.find(wanted)
        except NoSuchInstance as error:
            raise NoSuchInstance(
                f"{error}. Nothing was kept: an instance that is away is meant by its whole name, and must have been "
                "seen here before"
            ) from None
        return LaterPlace(instance.name, instance)

    async def send(self, place: LaterPlace, draft: Draft, on_text: OnText) -> Outcome | Kept:
        """Send a message if its instance is there and idle, and follow its turn; else keep it until then.

        What waits for the instance already is sent before it.

        Raises:
            Refused: it can neither be sent nor kept, or was before; nothing was done.
            InstanceError: it was posted, and it is not known whether it arrived.
        """
        if is_command(draft.text):
            raise Refused(
                "a command has no id by which it could be sent only once, so it is not kept; send it with when='now' "
                "once the instance is there. Nothing was kept and nothing sent"
            )
        repeated = self._outbox.repeated(draft)
        if isinstance(repeated, KeptMessage):
            return Kept(repeated, "this very message was accepted before, and is kept only once")
        if repeated:
            raise Refused(
                f"this very message was accepted before: {repeated}. Nothing was sent again; to have it done once "
                "more, say so in other words"
            )
        if draft.digest in self._in_hand:
            raise Refused(
                "another call is sending this very message just now, so this one sent nothing and kept nothing. "
                "`read` shows what it does, and `inbox` whether it is kept"
            )
        self._in_hand.add(draft.digest)
        try:
            return await self._send(place, draft, on_text)
        finally:
            self._in_hand.discard(draft.digest)

    async def _send(self, place: LaterPlace, draft: Draft, on_text: OnText) -> Outcome | Kept:
        if place.instance is None:
            # As it was when it was last heard of, if the journal has that.
            known = OpenWork(self._journal).at(place.name)
            return self._keep(draft._replace(machine=known.machine, directory=known.directory), "it is not there")
        if place.instance.agent_version:  # else nobody knows yet where it is indeed
            where = place.instance
            draft = draft._replace(machine=where.endpoint.short_machine, directory=where.state.directory)
        why = await self._unless_sent(place.instance, draft, on_text)
        return self._keep(draft, why) if isinstance(why, str) else why

    def _keep(self, draft: Draft, why: str) -> Kept:
        call = Call(draft.instance, draft.session or None, draft.text, _manner(draft))
        earlier = self._driver.sender.earlier
        begun = earlier.begun(call)
        if begun is None:
            return Kept(self._outbox.accept(draft), why)
        # One that was being sent when its call was cut off stays the same message.
        message = self._outbox.accept(draft, begun.prompt_id, begun.session_id)
        earlier.hand_over(call, begun)
        return Kept(message, f"{why}, and may have the message already, by a call that was cut off")

    async def _unless_sent(self, instance: Instance, draft: Draft, on_text: OnText) -> Outcome | str:
        """Send it now and return how its turn stands, or why it cannot be sent now."""
        try:
            await self._fleet.find_live(instance.name)
        except (Unreachable, Unresponsive):
            return "it is away"
        if self._outbox.messages(instance.name):
            return "others wait before it"
        try:
            return await self._driver.send(instance, draft.text, draft.session or None, on_text, _manner(draft))
        except Busy:
            return "it is busy"
        except (Unreachable, Unresponsive) as error:
            if error.is_doubtful:
                raise
            return "it is away"


def _manner(draft: Draft) -> Manner:
    return Manner("now", draft.agent, draft.model, draft.files)
