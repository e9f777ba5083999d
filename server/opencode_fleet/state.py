"""What is going on in one directory of an agent, kept from a snapshot and the events after it. No input or output.

What an agent runs is known only to the process that runs it, while its sessions may be shared by several processes
of a user. So what a session *does* is what its own agent told, and that is kept here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opencode_fleet.events import (
    RUN_STATE,
    AnswerChanged,
    AskOpened,
    AskSettled,
    Event,
    PromptTaken,
    SessionChanged,
    SessionGone,
    StatusChanged,
    TextChanged,
    ToolChanged,
    TurnFailed,
    TurnStopped,
)
from opencode_fleet.model import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opencode_fleet.model import Ask, Runs, Session

MAX_SESSIONS = 500
"""Idle sessions remembered of one directory; the least recently touched go first."""
MAX_LIVE_PARTS = 20
MAX_LIVE_CHARACTERS = 20_000
MAX_TOOL_CHARACTERS = 1_000
MAX_BUSY = 1_000
"""Sessions of one directory that are followed while they run."""
MAX_ASKS = 500
MAX_ASK_CHARACTERS = 5_000_000
"""Of all asks of one directory together."""


@dataclass(slots=True)
class Live:
    """What a running turn has produced so far: an agent's records show a text only when it is finished.

    `parts` maps part ids to text parts, in the order of their beginning.
    """

    parts: dict[str, str] = field(default_factory=dict)
    tool: str = ""
    """The tool call under way, as `name argument`; not yet cleaned."""

    def apply(self, event: TextChanged | ToolChanged) -> None:
        """Take what is new in a text part, or which tool call is under way."""
        if isinstance(event, ToolChanged):
            self.tool = event.call[:MAX_TOOL_CHARACTERS]
            return
        text = event.text if event.is_whole else self.parts.get(event.part_id, "") + event.text
        self.parts[event.part_id] = text[-MAX_LIVE_CHARACTERS:]
        if len(self.parts) > MAX_LIVE_PARTS:
            # Only the one that is being written is needed: the records have those before it.
            del self.parts[next(iter(self.parts))]

    @property
    def text(self) -> str:
        """The text so far."""
        return "\n".join(text for text in self.parts.values() if text)


class DirectoryState:
    """The state of one directory of one agent."""

    def __init__(self) -> None:
        self.directory = ""
        self.statuses: dict[str, Status] = {}
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self.ran: OrderedDict[str, float] = OrderedDict()
        """Sessions that this agent is known to have run, the latest last, with the time (monotonic seconds)."""
        self.not_followed: set[str] = set()
        """Running sessions beyond `MAX_BUSY`."""
        self.asks_left_out = 0
        """Open asks that were beyond the limits at the last look."""
        self.settled_how: OrderedDict[str, str] = OrderedDict()
        """How asks were settled, by id, where that was told."""
        self._told: OrderedDict[str, tuple[str, str]] = OrderedDict()
        """The newest prompt and answer of each session that this agent itself told of."""
        self._asks: dict[str, Ask] = {}
        self._stale: OrderedDict[str, None] = OrderedDict()
        self._live: dict[str, Live] = {}
        self._heard: dict[str, float] = {}
        """When each session that runs was last heard of (monotonic seconds)."""

    # -- questions ---------------------------------------------------------------------------------------------

    def root_of(self, session_id: str) -> str:
        """Return the session that `session_id` was started from, at any depth; itself where that is not known."""
        for _ in range(20):  # a hostile agent may make a circle
            session = self.sessions.get(session_id)
            if session is None or session.parent_id is None:
                return session_id
            session_id = session.parent_id
        return session_id

    def is_busy(self, session_id: str) -> bool:
        """Whether the session runs, or waits for a person."""
        return session_id in self.statuses or session_id in self.not_followed

    def has_told(self, session_id: str, message_id: str) -> bool:
        """Whether the agent's own events told of the message, as the session's newest: no other process wrote it."""
        return message_id in self._told.get(session_id, ())

    def busy_roots(self) -> list[str]:
        """Return the root sessions of everything that runs, each once."""
        return list(dict.fromkeys(self.root_of(session_id) for session_id in (*self.statuses, *self.not_followed)))

    def retries(self) -> list[Status]:
        """Return what waits for the model's service to come back."""
        return [status for status in self.statuses.values() if status.kind == "retry"]

    def family_busy(self, root: str) -> bool:
        """Whether the root session or one of its subagents runs."""
        if self.is_busy(root):
            return True
        return any(self.root_of(session_id) == root for session_id in (*self.statuses, *self.not_followed))

    def title(self, session_id: str) -> str:
        """Return a session's title, as its machine tells it; empty where it is not known."""
        session = self.sessions.get(session_id)
        return session.title if session is not None else ""

    def pending_asks(self, root: str | None = None) -> list[Ask]:
        """Return the asks that a running session waits for (of one root session): the others are left-overs."""
        return [
            ask
            for ask in self._asks.values()
            if ask.id not in self._stale
            and self.is_busy(ask.session_id)
            and (root is None or self.root_of(ask.session_id) == root)
        ]

    def is_quiet(self, seconds: float) -> bool:
        """Whether a session runs that nothing was heard of for so long: that it ended may have been lost."""
        now = time.monotonic()
        return any(now - heard >= seconds for heard in self._heard.values())

    def live(self, session_id: str) -> Live:
        """Return what the session's running turn has produced; empty if it is idle."""
        return self._live.get(session_id) or Live()

    def newest_root(self) -> Session | None:
        """Return the root session that was touched last."""
        roots = [s for s in self.sessions.values() if s.parent_id is None and not s.is_archived]
        return max(roots, key=lambda session: session.updated, default=None)

    # -- changes -----------------------------------------------------------------------------------------------

    def reset(self, directory: str, runs: Runs, sessions: Iterable[Session]) -> None:
        """Take over a snapshot's part of this directory: what was before it may be long out of date."""
        self.directory = directory
        for session in reversed(list(sessions)):
            self._remember(session)
        self.refresh(runs)

    def refresh(self, runs: Runs) -> None:
        """Take over what runs and waits: a session that is not in it is idle.

        An ask whose session does not run is left over from an aborted turn, for good.
        """
        self.not_followed.clear()
        for session_id in [known for known in self.statuses if known not in runs.statuses]:
            self._set_status(session_id, None)
        for session_id, status in runs.statuses.items():
            self._set_status(session_id, status)
        self._asks, self.asks_left_out = {}, 0
        for ask in runs.asks:
            self._keep_ask(ask)
            if not self.is_busy(ask.session_id):
                self._mark_stale(ask.id)

    def replay(self, events: Iterable[Event]) -> None:
        """Apply again what `events`, which came while lists were fetched, say of what runs."""
        for event in events:
            if isinstance(event, RUN_STATE):
                self.apply(event)

    def settled(self, ask_id: str) -> None:
        """Forget an ask that was just settled; the event that says so may come later."""
        self._asks.pop(ask_id, None)

    def forget(self, session_id: str) -> None:
        """Take over that the session is gone."""
        self.sessions.pop(session_id, None)
        self.ran.pop(session_id, None)
        self._told.pop(session_id, None)
        self._set_status(session_id, None)

    def apply(self, event: Event) -> None:
        """Take over an event."""
        if event.session_id in self._heard:
            self._heard[event.session_id] = time.monotonic()
        match event:
            case StatusChanged(session_id, status):
                self._set_status(session_id, status)
            case SessionChanged(session):
                self._remember(session)
            case SessionGone(session_id):
                self.forget(session_id)
            case AskOpened(ask):
                self._add_ask(ask)
            case AskSettled(_, ask_id, how):
                self._asks.pop(ask_id, None)
                self.settled_how[ask_id] = how
                _trim(self.settled_how)
            case TextChanged() | ToolChanged():
                if live := self._live.get(event.session_id):
                    live.apply(event)
            case PromptTaken(session_id, prompt_id):
                self._remember_told(session_id, prompt_id, self._told.get(session_id, ("", ""))[1])
            case AnswerChanged(session_id, message_id):
                self._remember_told(session_id, self._told.get(session_id, ("", ""))[0], message_id)
            case TurnFailed() | TurnStopped():
                pass  # of whoever follows the turn

    def _keep_ask(self, ask: Ask) -> None:
        size = ask.size + sum(kept.size for kept in self._asks.values())
        if len(self._asks) < MAX_ASKS and size <= MAX_ASK_CHARACTERS:
            self._asks[ask.id] = ask
        else:
            self.asks_left_out += 1

    def _add_ask(self, ask: Ask) -> None:
        if ask.id not in self._asks:
            self._keep_ask(ask)
        self._stale.pop(ask.id, None)  # a list of statuses older than the ask may have made it so
        # An ask proves that its session runs, also where the event saying so was lost.
        if not self.is_busy(ask.session_id):
            self._set_status(ask.session_id, Status())

    def _set_status(self, session_id: str, status: Status | None) -> None:
        if status is None:
            self.not_followed.discard(session_id)
            self.statuses.pop(session_id, None)
            self._heard.pop(session_id, None)
            self._live.pop(session_id, None)
            for ask in self._asks.values():
                if ask.session_id == session_id:
                    self._mark_stale(ask.id)
            return
        if session_id not in self.statuses and len(self.statuses) >= MAX_BUSY:
            if len(self.not_followed) < MAX_BUSY:
                self.not_followed.add(session_id)
            return
        self.statuses[session_id] = status
        self._live.setdefault(session_id, Live())
        self._heard[session_id] = self.ran[session_id] = time.monotonic()
        self.ran.move_to_end(session_id)
        _trim(self.ran, MAX_SESSIONS + MAX_BUSY)

    def _mark_stale(self, ask_id: str) -> None:
        self._stale[ask_id] = None
        _trim(self._stale, MAX_SESSIONS + MAX_ASKS)

    def _remember_told(self, session_id: str, prompt_id: str, answer_id: str) -> None:
        self._told[session_id] = prompt_id, answer_id
        self._told.move_to_end(session_id)
        _trim(self._told)

    def _remember(self, session: Session) -> None:
        self.sessions[session.id] = session
        self.sessions.move_to_end(session.id)
        if len(self.sessions) > MAX_SESSIONS:
            oldest = next((known for known in self.sessions if not self.is_busy(known)), None)
            if oldest is not None and len(self.sessions) - len(self.statuses) > MAX_SESSIONS:
                del self.sessions[oldest]
            elif len(self.sessions) > MAX_SESSIONS + MAX_BUSY:
                self.sessions.popitem(last=False)


def _trim(known: OrderedDict[str, Any], limit: int = MAX_SESSIONS) -> None:
    while len(known) > limit:
        known.popitem(last=False)
