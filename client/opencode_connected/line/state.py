"""What the line tells of itself."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from opencode_connected.registration import now_utc

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_connected.line.errors import Hop, LineError
    from opencode_connected.line.protocol import Health

Phase = Literal["connecting", "connected", "registered", "retrying", "refused", "closed"]
"""`connected`: there is a tunnel, but no registration (yet, or see `error`). `refused`: only a person can mend it."""
EventKind = Literal["connected", "registered", "renamed", "lost", "trouble", "recovered", "closed"]


@dataclass(frozen=True)
class LineEvent:
    """Something that happened."""

    at: str
    """ISO 8601, UTC."""
    kind: EventKind
    text: str
    """One line that no terminal acts upon."""
    remedy: str = ""
    """The next step for a person, where there is one."""


@dataclass(frozen=True)
class LineState:
    """A snapshot."""

    phase: Phase
    since: str
    """When the phase began: ISO 8601, UTC."""
    port: int | None = None
    """The relay's port that leads to OpenCode."""
    name: str | None = None
    """What the relay registered this instance as."""
    agent: str | None = None
    """What answers at the relay's end: `sh`, or the agent of a provisioned relay."""
    health: Health | None = None
    """Of OpenCode through the tunnel, at the last ping."""
    error: str | None = None
    """What is wrong now."""
    remedy: str | None = None
    hop: Hop | None = None
    """Where it broke."""
    reconnects: int = 0
    history: tuple[LineEvent, ...] = ()
    """The last events, oldest first."""


_HISTORY_EVENTS: Final = 50


class LineRecord:
    """Keeps the state and the history, and hands every event to `on_event`."""

    def __init__(self, on_event: Callable[[LineEvent], None]) -> None:
        self._on_event = on_event
        self._history: deque[LineEvent] = deque(maxlen=_HISTORY_EVENTS)
        self._state = LineState(phase="connecting", since=now_utc())

    @property
    def state(self) -> LineState:
        """The state now."""
        return replace(self._state, history=tuple(self._history))

    def connected(self, port: int, agent: str) -> None:
        """There is a tunnel."""
        self._phase("connected", port=port, agent=agent, health=None, error=None, remedy=None, hop=None)
        self._note("connected", f"connected: port {port} of the relay leads here")

    def registered(self, name: str, asked: str, health: Health) -> None:
        """The relay has the registration."""
        is_renamed = name not in (asked, self._state.name)
        self._phase("registered", name=name, health=health, error=None, remedy=None, hop=None)
        self._note("registered", f"registered as {name!r}")
        if is_renamed:
            self._note("renamed", f"the relay has this instance as {name!r} instead of {asked!r}")

    def lost(self, error: LineError) -> None:
        """There is no connection."""
        was_connected = self._state.phase in ("connected", "registered")
        is_news = was_connected or str(error) != self._state.error  # said once, not with every try
        self._phase(
            "refused" if error.permanent else "retrying",
            port=None,
            health=None,
            error=str(error),
            remedy=error.remedy or None,
            hop=error.hop,
            reconnects=self._state.reconnects + was_connected,
        )
        if is_news:
            self._note("lost", str(error), error.remedy)

    def trouble(self, text: str, *, hop: Hop, remedy: str = "", is_registered: bool) -> None:
        """The connection stands, but something is wrong with it."""
        is_news = text != self._state.error
        self._phase("registered" if is_registered else "connected", error=text, remedy=remedy or None, hop=hop)
        if is_news:
            self._note("trouble", text, remedy)

    def pulse(self, health: Health, *, is_well: bool) -> None:
        """A ping came back. `is_well`: whatever was wrong is over."""
        self._state = replace(self._state, health=health)
        if is_well and self._state.error is not None:
            self._state = replace(self._state, error=None, remedy=None, hop=None)
            self._note("recovered", "all is well again")

    def closed(self) -> None:
        """The line is no more."""
        self._phase("closed", port=None, health=None)
        self._note("closed", "closed")

    def _phase(self, phase: Phase, **changes: object) -> None:
        since = self._state.since if phase == self._state.phase else now_utc()
        self._state = replace(self._state, phase=phase, since=since, **changes)  # type: ignore[arg-type] # its own fields

    def _note(self, kind: EventKind, text: str, remedy: str = "") -> None:
        event = LineEvent(now_utc(), kind, text, remedy)
        self._history.append(event)
        self._on_event(event)
