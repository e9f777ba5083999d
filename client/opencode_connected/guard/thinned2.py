"""What the server reads of OpenCode 2's messages and events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opencode_connected.guard.routes import member
from opencode_connected.guard.thinning import ARGUMENTS, WHOLE, beginning, each, end, kept, keys

if TYPE_CHECKING:
    from opencode_connected.guard.thinning import Shape

_ERROR: Final = keys("type", "message")


def _output(contents: object) -> object:
    """Keep the end of all texts together, as the server puts them together."""
    texts = [member(content, "text") for content in contents] if isinstance(contents, list) else []
    return [{"type": "text", "text": end("\n".join(text for text in texts if isinstance(text, str) and text))}]


_PIECES: Final[dict[object, Shape]] = {
    "text": keys("type", "text", "time"),
    "tool": {
        **keys("type", "id", "name", "time"),
        "state": {"status": WHOLE, "input": ARGUMENTS, "content": _output, "error": {**_ERROR, "message": beginning}},
    },
}


def _piece(value: object) -> object:
    kind = member(value, "type")
    shape = _PIECES.get(kind) if isinstance(kind, str) else None
    return kept(value, shape or keys("type", "time"))


MESSAGES: Final[Shape] = {
    "data": each(
        {
            **keys("id", "type", "time", "text", "description", "finish", "agent", "model", "outcome", "status"),
            **keys("summary", "command", "name"),
            "files": each(keys("name")),
            "content": each(_piece),
            "error": _ERROR,
            "retry": {"attempt": WHOLE, "error": _ERROR},
        }
    ),
    "cursor": WHOLE,
}
"""Of a page of messages. Who asks for one message gets it whole."""

_SESSION: Final = keys("sessionID")
_STEP: Final = keys("sessionID", "assistantMessageID")
_TEXT: Final = keys("sessionID", "assistantMessageID", "ordinal")
_CALL: Final = keys("sessionID", "assistantMessageID", "id")
_DATA: Final[dict[str, Shape]] = {
    "session.created": keys("sessionID", "parentID", "projectID", "title", "agent", "model", "location"),
    "session.forked": _SESSION,
    "session.renamed": _SESSION,
    "session.moved": _SESSION,
    "session.agent.selected": _SESSION,
    "session.model.selected": _SESSION,
    "session.deleted": _SESSION,
    "session.inbox.enqueued": {**keys("sessionID", "inboxID"), "item": keys("type")},
    "session.inbox.delivered": keys("sessionID", "inboxID"),
    "session.execution.started": _SESSION,
    "session.execution.succeeded": _SESSION,
    "session.execution.interrupted": _SESSION,
    "session.execution.failed": {**_SESSION, "error": _ERROR},
    "session.retry.scheduled": {**keys("sessionID", "attempt"), "error": _ERROR},
    "session.step.started": _STEP,
    "session.step.ended": {**_STEP, "finish": WHOLE},
    "session.step.failed": _STEP,
    "session.text.started": _TEXT,
    "session.text.delta": {**_TEXT, "delta": WHOLE},
    "session.text.ended": {**_TEXT, "text": WHOLE},
    "session.tool.input.started": {**_CALL, "name": WHOLE},
    # What a tool is called with may be what it asks for, and that is shown whole, or cannot be approved.
    "session.tool.called": {**_CALL, "input": WHOLE},
    "session.tool.success": _CALL,
    "session.tool.failed": _CALL,
    "permission.asked": WHOLE,
    "permission.replied": keys("sessionID", "requestID", "reply"),
    "form.created": WHOLE,
    "form.replied": keys("sessionID", "id"),
    "form.cancelled": keys("sessionID", "id"),
}
_EVENTS: Final[dict[str, Shape]] = {
    kind: {**keys("id", "created", "type", "location"), "data": shape} for kind, shape in _DATA.items()
}


class Thinner2:
    """Thins the events of one stream: none of them says again what one before it said."""

    kinds = frozenset(_EVENTS)

    def thin(self, kind: str, event: dict[str, Any]) -> object:
        """See `thinning.Thinner`."""
        return kept(event, _EVENTS[kind]) if kind in _EVENTS else None
