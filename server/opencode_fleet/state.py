"""What one OpenCode process is doing, kept from a snapshot and the events after it. No input or output here.

OpenCode's run state (statuses, asks) is per process and per directory; its sessions are shared by all processes of a
user. So what a session *does* is known only from the process that runs it, and that is what is kept here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from opencode_fleet.wire import ID, Ask, Event, MessageInfo, Part, Permission, Question, Session, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_SESSIONS = 500
"""Sessions remembered of one instance; the least recently touched go first."""
MAX_LIVE_PARTS = 20
MAX_LIVE_CHARACTERS = 20_000
MAX_TOOL_CHARACTERS = 1_000
MAX_BUSY = 50
"""Sessions of one instance that run at once."""
MAX_ASKS = 100
MAX_ASK_CHARACTERS = 5_000_000
"""Of all asks of one instance together."""


@dataclass(slots=True)
class Live:
    """What a running turn has produced so far: OpenCode's REST shows a text only when it is finished.

    `parts` maps part ids to text parts (reasoning is left out), in the order of their beginning.
    """

    parts: dict[str, str] = field(default_factory=dict)
    tool: str = ""
    """The tool call under way, as `name argument`; not yet cleaned."""

    def apply_part(self, part: Part) -> None:
        """Take a part as a whole, as `message.part.updated` tells it."""
        if part.type == "text" and not part.synthetic:
            self._set(part.id, part.text)
        elif part.type == "tool":
            running = part.state.status in {"pending", "running"}
            call = f"{part.tool} {short_argument(part)}".strip() if running else ""
            self.tool = call[:MAX_TOOL_CHARACTERS]

    def apply_delta(self, part_id: str, delta: str) -> None:
        """Append to a text part. Reasoning's deltas look the same: a part not known to be text is not shown."""
        if part_id in self.parts:
            self._set(part_id, self.parts[part_id] + delta)

    def _set(self, part_id: str, text: str) -> None:
        self.parts[part_id] = text[-MAX_LIVE_CHARACTERS:]
        if len(self.parts) > MAX_LIVE_PARTS:
            # Only the one that is being written is needed: REST has those before it.
            del self.parts[next(iter(self.parts))]

    @property
    def text(self) -> str:
        """The text so far."""
        return "\n".join(text for text in self.parts.values() if text)


def short_argument(part: Part) -> str:
    """Return what a tool call is about: its title, else its most telling argument; not yet cleaned."""
    if part.state.title:
        return part.state.title
    for key in ("command", "filePath", "path", "pattern", "url", "description", "query"):
        value = part.state.input.get(key)
        if isinstance(value, str) and value:
            return value
    return ""


@dataclass(slots=True)
class Snapshot:
    """What a newly connected instance answered."""

    directory: str
    version: str
    statuses: dict[str, Status]
    asks: list[Ask]
    sessions: list[Session]


class InstanceState:
    """The state of one OpenCode process in one directory."""

    def __init__(self) -> None:
        self.directory = ""
        self.version = ""
        self.statuses: dict[str, Status] = {}
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self.ran: OrderedDict[str, float] = OrderedDict()
        """Sessions that this process is known to have run, the latest last, with the time (monotonic seconds)."""
        self._asks: dict[str, Ask] = {}
        self._stale: OrderedDict[str, None] = OrderedDict()
        self._live: dict[str, Live] = {}
        self._from_user: OrderedDict[str, None] = OrderedDict()

    # -- questions ---------------------------------------------------------------------------------------------

    def root_of(self, session_id: str) -> str:
        """Return the session that `session_id` was started from, at any depth; itself where that is not known."""
        for _ in range(20):  # a hostile instance may make a circle
            session = self.sessions.get(session_id)
            if session is None or session.parent_id is None:
                return session_id
            session_id = session.parent_id
        return session_id

    def is_busy(self, session_id: str) -> bool:
        """Whether the session runs, or waits for a person."""
        return session_id in self.statuses

    def busy_roots(self) -> list[str]:
        """Return the root sessions of everything that runs, each once."""
        return list(dict.fromkeys(self.root_of(session_id) for session_id in self.statuses))

    def retries(self) -> list[Status]:
        """Return what waits for the model's service to come back."""
        return [status for status in self.statuses.values() if status.type == "retry"]

    def family_busy(self, root: str) -> bool:
        """Whether the root session or one of its subagents runs."""
        return any(self.root_of(session_id) == root for session_id in self.statuses)

    def pending_asks(self, root: str | None = None) -> list[Ask]:
        """Return the asks that a running session waits for (of one root session): the others are left-overs."""
        return [
            ask
            for ask in self._asks.values()
            if ask.id not in self._stale
            and ask.session_id in self.statuses
            and (root is None or self.root_of(ask.session_id) == root)
        ]

    def live(self, session_id: str) -> Live:
        """Return what the session's running turn has produced; empty if it is idle."""
        return self._live.get(session_id) or Live()

    def newest_root(self) -> Session | None:
        """Return the root session that was touched last."""
        roots = [s for s in self.sessions.values() if s.parent_id is None and not s.is_archived]
        return max(roots, key=lambda session: session.time.updated, default=None)

    # -- changes -----------------------------------------------------------------------------------------------

    def reset(self, snapshot: Snapshot) -> None:
        """Take over a snapshot: what was before it may be long out of date."""
        self.directory = snapshot.directory
        self.version = snapshot.version
        self._asks = {}
        for session in reversed(snapshot.sessions):
            self._remember(session)
        for session_id in [known for known in self._live if known not in snapshot.statuses]:
            del self._live[session_id]
        self.statuses = {}
        for session_id, status in snapshot.statuses.items():
            self._set_status(session_id, status)
        self.refresh_asks(snapshot.asks)

    def refresh_asks(self, asks: Iterable[Ask]) -> None:
        """Take over the list of asks. One whose session does not run is left over from an aborted turn, for good."""
        self._asks = {}
        for ask in asks:
            self._keep_ask(ask)
            if ask.session_id not in self.statuses:
                self._mark_stale(ask.id)

    def refresh_statuses(self, statuses: dict[str, Status]) -> None:
        """Take over the list of statuses: a session that is not in it is idle."""
        for session_id in [known for known in self.statuses if known not in statuses]:
            self._set_status(session_id, Status(type="idle"))
        for session_id, status in statuses.items():
            self._set_status(session_id, status)

    def replay(self, events: Iterable[Event]) -> None:
        """Apply again what `events`, which came while lists were fetched, say of statuses and asks."""
        for event in events:
            if event.type in _RUN_STATE:
                self.apply(event)

    def settled(self, ask_id: str) -> None:
        """Forget an ask that was just settled; the event that says so may come later."""
        self._asks.pop(ask_id, None)

    def apply(self, event: Event) -> None:
        """Take over an event; unknown and malformed ones change nothing."""
        handler = self._HANDLERS.get(event.type)
        if handler is None:
            return
        try:
            handler(self, event.properties)
        except (ValidationError, KeyError, TypeError):
            return

    def _on_status(self, properties: dict[str, Any]) -> None:
        self._set_status(_id(properties, "sessionID"), Status.model_validate(properties["status"]))

    def _on_idle(self, properties: dict[str, Any]) -> None:
        self._set_status(_id(properties, "sessionID"), Status(type="idle"))

    def _on_session(self, properties: dict[str, Any]) -> None:
        self._remember(Session.model_validate(properties["info"]))

    def _on_session_deleted(self, properties: dict[str, Any]) -> None:
        self.forget(Session.model_validate(properties["info"]).id)

    def forget(self, session_id: str) -> None:
        """Take over that the session is gone."""
        self.sessions.pop(session_id, None)
        self.ran.pop(session_id, None)
        self._set_status(session_id, Status(type="idle"))

    def _on_permission(self, properties: dict[str, Any]) -> None:
        self._add_ask(Permission.model_validate(properties))

    def _on_question(self, properties: dict[str, Any]) -> None:
        self._add_ask(Question.model_validate(properties))

    def _on_settled(self, properties: dict[str, Any]) -> None:
        self._asks.pop(_text(properties, "requestID"), None)

    def _on_message(self, properties: dict[str, Any]) -> None:
        info = MessageInfo.model_validate(properties["info"])
        if info.role == "user":
            # A user's message has text parts too; they are not what the agent says.
            self._from_user[info.id] = None
            _trim(self._from_user)

    def _on_part(self, properties: dict[str, Any]) -> None:
        part = Part.model_validate(properties["part"])
        if part.session_id in self._live and part.message_id not in self._from_user:
            self._live[part.session_id].apply_part(part)

    def _on_delta(self, properties: dict[str, Any]) -> None:
        live = self._live.get(_text(properties, "sessionID"))
        if live is not None and properties.get("field") == "text":
            live.apply_delta(_text(properties, "partID"), _text(properties, "delta"))

    def _keep_ask(self, ask: Ask) -> None:
        size = ask.size + sum(kept.size for kept in self._asks.values())
        if len(self._asks) < MAX_ASKS and size <= MAX_ASK_CHARACTERS:
            self._asks[ask.id] = ask

    def _add_ask(self, ask: Ask) -> None:
        self._keep_ask(ask)
        self._stale.pop(ask.id, None)  # a list of statuses older than the ask may have made it so
        # An ask proves that its session runs, also where the event saying so was lost.
        if ask.session_id not in self.statuses:
            self._set_status(ask.session_id, Status())

    def _set_status(self, session_id: str, status: Status) -> None:
        if status.type == "idle":
            self.statuses.pop(session_id, None)
            self._live.pop(session_id, None)
            for ask in self._asks.values():
                if ask.session_id == session_id:
                    self._mark_stale(ask.id)
            return
        if session_id not in self.statuses and len(self.statuses) >= MAX_BUSY:
            return
        self.statuses[session_id] = status
        self._live.setdefault(session_id, Live())
        self.ran[session_id] = time.monotonic()
        self.ran.move_to_end(session_id)
        _trim(self.ran)

    def _mark_stale(self, ask_id: str) -> None:
        self._stale[ask_id] = None
        _trim(self._stale)

    def _remember(self, session: Session) -> None:
        self.sessions[session.id] = session
        self.sessions.move_to_end(session.id)
        if len(self.sessions) > MAX_SESSIONS:
            oldest = next(known for known in self.sessions if known not in self.statuses)
            del self.sessions[oldest]

    _HANDLERS: ClassVar[dict[str, Callable[[InstanceState, dict[str, Any]], None]]] = {
        "session.status": _on_status,
        "session.idle": _on_idle,
        "session.created": _on_session,
        "session.updated": _on_session,
        "session.deleted": _on_session_deleted,
        "permission.asked": _on_permission,
        "question.asked": _on_question,
        "permission.replied": _on_settled,
        "question.replied": _on_settled,
        "question.rejected": _on_settled,
        "message.updated": _on_message,
        "message.part.updated": _on_part,
        "message.part.delta": _on_delta,
    }


_RUN_STATE = frozenset(
    {
        "session.status",
        "session.idle",
        "session.deleted",
        "permission.asked",
        "permission.replied",
        "question.asked",
        "question.replied",
        "question.rejected",
    }
)


def _id(properties: dict[str, Any], key: str) -> str:
    return ID.validate_python(properties[key])


def _text(properties: dict[str, Any], key: str) -> str:
    value = properties[key]
    if not isinstance(value, str):
        raise TypeError(key)
    return value


def _trim(known: OrderedDict[str, None] | OrderedDict[str, float]) -> None:
    while len(known) > MAX_SESSIONS:
        known.popitem(last=False)
