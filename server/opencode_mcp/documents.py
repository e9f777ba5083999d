"""The documents that pages are made of, over one face: the inbox, and each ask.

A page shows them to a person by itself, so what stands in one counts as shown to nobody in a chat.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from opencode_common.text import one_line
from opencode_fleet.decisions import Decision, Decisions
from opencode_fleet.errors import InstanceError, Refused
from opencode_fleet.inbox import SEEN_WITHIN, Waiting
from opencode_fleet.model import Permission
from opencode_fleet.open_work import OpenWork
from opencode_journal.entries import ASK_OPENED, TURN_STARTED
from opencode_mcp.views.digests import digest_of_waiting
from opencode_mcp.views.documents import ask_away, ask_open, ask_settled, ask_summary, ended, line
from opencode_mcp.views.inbox import InboxView
from opencode_pages.documents import InboxDocument, RunningSession

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask
    from opencode_mcp.face import Face
    from opencode_pages.documents import AskDocument

MAX_ASKS: Final = 100
MAX_RUNNING: Final = 100
MAX_ENDS: Final = 20
_LOOKED_THROUGH: Final = 1_000
"""Entries of the journal, the newest: of what is older it is not told when it began."""
_NAME: Final = 64
_TITLE: Final = 80
_NOTE: Final = 200


class NoSuchAsk(Refused):
    """No ask is known by that name."""


class Documents:
    """Makes them of what the machines say now, and of the journal where they are away."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._open = OpenWork(face.journal)
        self._decisions = Decisions(face.journal)

    # -- the inbox -----------------------------------------------------------------------------------------------

    async def inbox(self) -> InboxDocument:
        """Return what needs a person, what runs, and what ended."""
        handles = self._face.handles
        instances = await self._face.fleet.instances()
        waiting = await self._face.inbox.waiting()
        listed = waiting[:MAX_ASKS]
        handles.prepare_asks([(each.instance, each.id, digest_of_waiting(each)) for each in listed])
        handles.prepare("s", [(each.instance, each.root) for each in listed])
        running = [*self._running(instances, {(each.instance, each.root) for each in waiting})]
        ends = InboxView(handles, self._face.shown, time.time(), self._face.caller.login).end_rows(
            self._face.inbox.latest_ends(MAX_ENDS)
        )
        return InboxDocument(
            asks=tuple(ask_summary(each, handles) for each in listed),
            asks_left_out=len(waiting) - len(listed) + sum(each.state.asks_left_out for each in instances),
            running=tuple(self._turn(*each) for each in running[:MAX_RUNNING]),
            running_left_out=max(0, len(running) - MAX_RUNNING),
            ended=tuple(ended(row) for row in reversed(ends)),
            instances=len(instances),
            away=sum(not each.connected.is_set() for each in instances),
            problem=self._face.journal.trouble,
        )

    def _running(
        self, instances: list[Instance], waiting: set[tuple[str, str]]
    ) -> Iterator[tuple[Instance, str, float | None]]:
        """Yield the turns that need nobody, each with when it began, as far as the journal knows."""
        began = {
            (entry.instance, entry.session): entry.at
            for entry in self._face.journal.latest(_LOOKED_THROUGH, {TURN_STARTED})
        }
        for instance in instances:
            if instance.connected.is_set():
                for root in instance.state.busy_roots():
                    if (instance.name, root) not in waiting:
                        yield instance, root, began.get((instance.name, root))

    def _turn(self, instance: Instance, root: str, since: float | None) -> RunningSession:
        status = instance.state.statuses.get(root)
        note = status.describe() if status is not None and status.kind == "retry" else ""
        return RunningSession(
            instance=line(instance.name, _NAME),
            session=self._face.handles.of_session(instance.name, root),
            title=line(instance.state.title(root), _TITLE),
            since=since,
            note=line(note, _NOTE),
        )

    # -- an ask --------------------------------------------------------------------------------------------------

    async def ask(self, handle: str) -> AskDocument:
        """Return all of an ask by its handle. Raises `NoSuchAsk`."""
        try:
            name, ask_id = self._face.handles.ask(handle)
        except Refused as error:
            raise NoSuchAsk(str(error)) from None
        return await self.ask_of(name, ask_id)

    async def ask_of(self, name: str, ask_id: str) -> AskDocument:
        """Return the same by the name of its instance and its own id. Raises `NoSuchAsk`."""
        found = await self._found(name, ask_id)
        if found is None:
            raise NoSuchAsk(f"nothing is known of an ask {one_line(ask_id, 80)!r} of {one_line(name, _NAME)!r}")
        return found

    async def _found(self, name: str, ask_id: str) -> AskDocument | None:
        """Return an ask that waits, or of which the journal tells; None where nobody can say what it is."""
        handles = self._face.handles
        instance = next((each for each in await self._face.fleet.instances() if each.name == name), None)
        has_answered = instance is not None and instance.connected.is_set() and await _has_answered(instance)
        ask = next((each for each in instance.state.pending_asks() if each.id == ask_id), None) if instance else None
        if instance is not None and ask is not None:
            waiting = self._waiting(instance, ask, is_there=has_answered)
            return ask_open(waiting, instance, ask, handles)
        if not has_answered and (recorded := self._open.at(name).asks.get(ask_id)) is not None:
            waiting = Waiting(
                instance=name,
                id=ask_id,
                root=recorded.root,
                title=recorded.title,
                since=recorded.at,
                is_question=recorded.is_question,
                about=recorded.about,
            )
            return ask_away(waiting, handles, self._open.at(name).directory)
        opened, decision = self._opened(name, ask_id), self._settled(name, ask_id, instance)
        if opened is None and decision is None:
            return None
        # One that came and went too fast for the journal may have nothing but its end.
        nothing = Waiting(instance=name, id=ask_id, root="", title="", since=time.time(), is_question=False)
        return ask_settled(opened or nothing, handles, decision)

    def _waiting(self, instance: Instance, ask: Ask, *, is_there: bool) -> Waiting:
        root = instance.state.root_of(ask.session_id)
        recorded = self._open.at(instance.name).asks.get(ask.id)
        return Waiting(
            instance=instance.name,
            id=ask.id,
            root=root,
            title=instance.state.title(root),
            since=recorded.at if recorded else time.time(),
            is_question=not isinstance(ask, Permission),
            place=instance if is_there else None,
            ask=ask,
        )

    def _opened(self, name: str, ask_id: str) -> Waiting | None:
        """Return an ask as the journal tells that it came; None where it does not."""
        for entry in reversed(self._face.journal.latest(_LOOKED_THROUGH, {ASK_OPENED})):
            if (entry.instance, entry.ask) == (name, ask_id):
                return Waiting(
                    instance=name,
                    id=ask_id,
                    root=entry.session,
                    title=str(entry.data.get("title", "")),
                    since=entry.at,
                    is_question=bool(entry.data.get("question")),
                    about=str(entry.data.get("about", "")),
                )
        return None

    def _settled(self, name: str, ask_id: str, instance: Instance | None = None) -> Decision | None:
        """Return how an ask was settled, and by whom, as far as that is known."""
        found = self._decisions.settled(name, ask_id)
        if found is None and instance is not None and (how := instance.state.settled_how.get(ask_id)):
            return Decision(how)
        return found


async def _has_answered(instance: Instance) -> bool:
    """Fetch anew what waits there. Tells whether the agent answered: a page does not wait for one that does not."""
    try:
        async with asyncio.timeout(SEEN_WITHIN):
            await instance.refresh()
    except (InstanceError, TimeoutError):
        return False
    return True
