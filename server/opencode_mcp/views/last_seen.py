"""What is known of a conversation whose machine is away: how it was when it was last heard of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_common.text import bare, clean, cut_head, one_line
from opencode_mcp.views.conversations import MessageRow, ReadResult
from opencode_mcp.views.rows import OWN_WORDS
from opencode_mcp.views.sessions import session_state

if TYPE_CHECKING:
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Session
    from opencode_mcp.views.shown import Shown

_DID = {
    "waits": "it waited for the person",
    "retry": "it waited for the model's service",
    "busy": "it was at work",
    "idle": "it was idle",
}
_MORE = "the rest comes once its machine is back"
_REASON_LENGTH = 300
_LEAST = 200
"""Characters of what was being written that are shown, however little was asked for."""
_MAX_ASKS = 5
"""Of which a line is said; programs get all."""


def last_seen(instance: Instance, wanted: str | None, max_chars: int, shown: Shown) -> ReadResult | None:
    """Return what a session was doing, and wrote, when its machine was last heard of; None where nothing is known.

    `wanted`: the session's id; None: the one that ran, or else the newest.
    """
    known, session = instance.known_until, _session(instance, wanted)
    if known is None or session is None:
        return None
    state = instance.state
    live = state.live(session.id)
    rows = [MessageRow(role="note", text=_DID[session_state(instance, session.id)])]
    if live.text:
        said = cut_head(clean(live.text), max(_LEAST, max_chars - 2 * OWN_WORDS), _MORE)
        rows.append(MessageRow(role="assistant", text=f"{said} [… was being written]"))
    if live.tool:
        rows.append(MessageRow(role="note", text=f"it ran {one_line(live.tool, 160)}"))
    asks = shown.rows(instance, state.pending_asks(session.id))
    rows += [MessageRow(role="note", text=f"it waited for {ask.handle}: {ask.summary}") for ask in asks[:_MAX_ASKS]]
    return ReadResult(
        instance=instance.name,
        session=session.id,
        title=one_line(session.title, 200),
        state=instance.state_name(),
        known=known,
        agent=one_line(session.agent, 60),
        model=one_line(session.model, 120),
        problem=one_line(bare(instance.trouble), _REASON_LENGTH) or "its machine does not answer",
        messages=rows,
        asks=asks,
    )


def _session(instance: Instance, wanted: str | None) -> Session | None:
    state = instance.state
    if wanted:
        return state.sessions.get(wanted)
    running = next((state.sessions[root] for root in state.busy_roots() if root in state.sessions), None)
    return running or state.newest_root()
