"""What the server reads of OpenCode 1's messages and events. Each repeats the whole output of a running tool."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from opencode_connected.guard.bodies import is_id
from opencode_connected.guard.routes import member
from opencode_connected.guard.thinning import (
    ARGUMENTS,
    WHOLE,
    beginning,
    compact,
    each,
    end,
    kept,
    keys,
    remember,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_connected.guard.thinning import Shape

_MAX_CALLS: Final = 100
"""Of one session at once."""
_TOLD_SECONDS: Final = 10.0
"""After which a call that still runs is told again: its reader may have begun anew with an older list of sessions."""
_RUNNING: Final = ("pending", "running")

# Beside its message an error has the provider's whole answer.
_ERROR: Final[Shape] = {"name": WHOLE, "data": keys("message")}
_SESSION: Final[Shape] = {
    **keys("id", "directory", "title", "parentID", "projectID", "agent", "model", "time", "cost"),
    "tokens": keys("input", "output", "reasoning"),
    "summary": keys("files", "additions", "deletions"),
}
_INFO: Final[Shape] = {
    **keys(
        "id", "sessionID", "role", "parentID", "time", "finish", "agent", "mode", "model", "modelID", "providerID"
    ),
    "error": _ERROR,
    # True of a compaction's; of a person's message an object that may hold whole files.
    "summary": {},
}
_PART: Final = keys("id", "sessionID", "messageID", "type", "time")
_TEXT: Final[Shape] = {**_PART, **keys("text", "synthetic")}
_ENDED_CALL: Final[Shape] = {**_PART, "tool": WHOLE, "state": keys("status")}
_CALL: Final[Shape] = {**_PART, "tool": WHOLE, "state": {"status": WHOLE, "title": beginning, "input": ARGUMENTS}}
_STORED_CALL: Final[Shape] = {
    **_PART,
    "tool": WHOLE,
    "state": {**keys("status", "time"), "title": beginning, "input": ARGUMENTS, "error": beginning, "output": end},
}
_STORED: Final[dict[object, Shape]] = {
    "text": _TEXT,
    "tool": _STORED_CALL,
    "file": {**_PART, **keys("filename", "synthetic")},
}


def _stored(part: object) -> object:
    # Of the others the server only looks whether there are any.
    kind = member(part, "type")
    return kept(part, _STORED.get(kind, _PART) if isinstance(kind, str) else _PART)


MESSAGES: Final[Shape] = each({"info": _INFO, "parts": each(_stored)})
"""Of a page of messages. Who asks for one message gets it whole."""


def _event(properties: Shape) -> Shape:
    return {**keys("id", "type"), "properties": properties}


_EVENTS: Final[dict[str, Shape]] = {
    "session.status": _event(keys("sessionID", "status")),
    "session.idle": _event(keys("sessionID")),
    "session.created": _event({"sessionID": WHOLE, "info": _SESSION}),
    "session.updated": _event({"sessionID": WHOLE, "info": _SESSION}),
    "session.deleted": _event({"sessionID": WHOLE, "info": _SESSION}),
    "session.error": _event({"sessionID": WHOLE, "error": _ERROR}),
    # What is asked is shown whole, or cannot be approved.
    "permission.asked": WHOLE,
    "permission.replied": _event(keys("sessionID", "requestID", "reply")),
    "question.asked": WHOLE,
    "question.replied": _event(keys("sessionID", "requestID")),
    "question.rejected": _event(keys("sessionID", "requestID")),
    "message.updated": _event({"sessionID": WHOLE, "info": _INFO}),
    "message.part.delta": WHOLE,
    "message.part.updated": _event({"sessionID": WHOLE, "part": WHOLE}),
}


_IDS: Final = ("id", "sessionID", "messageID", "partID")


def _has_odd_ids(event: dict[str, Any]) -> bool:
    """Tell whether an event of a message names by anything but an id what is to be remembered: that may be long."""
    properties = member(event, "properties")
    places = (properties, member(properties, "part"), member(properties, "info"))
    named = [place[key] for place in places if isinstance(place, dict) for key in _IDS if key in place]
    return not all(map(is_id, named))


class Thinner1:
    """Thins the events of one stream.

    A tool's call is told when it begins, when it is called something else, when it ends, and now and then while it
    tells more; its output is in the messages. Texts are told as they are written, but those of persons, and no
    reasoning. `clock` counts seconds.
    """

    kinds = frozenset(_EVENTS)

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: OrderedDict[str, dict[str, tuple[int, float]]] = OrderedDict()
        """By session what was told last of each call that runs, as a hash, and when."""
        self._unread: OrderedDict[str, None] = OrderedDict()
        """Persons' messages, and parts that are reasoning."""
        self._lengths: OrderedDict[str, int] = OrderedDict()
        """Of texts that are being written, as far as they were told."""

    def thin(self, kind: str, event: dict[str, Any]) -> object:
        """See `thinning.Thinner`."""
        if kind not in _EVENTS or (kind.startswith("message.") and _has_odd_ids(event)):
            return None
        if kind == "message.part.updated":
            return self._part(event)
        if not kind.startswith("message."):
            # What a session ran, and the beginnings of texts, may be forgotten with what it does now.
            self._running.pop(str(member(event, "properties", "sessionID")), None)
            self._lengths.clear()
        if kind == "message.updated" and member(event, "properties", "info", "role") == "user":
            remember(self._unread, str(member(event, "properties", "info", "id")))
        if kind == "message.part.delta":
            part_id = str(member(event, "properties", "partID"))
            self._lengths.pop(part_id, None)
            if part_id in self._unread:
                return None
        return kept(event, _EVENTS[kind])

    def _part(self, event: dict[str, Any]) -> object:
        part = member(event, "properties", "part")
        if not isinstance(part, dict) or str(part.get("messageID")) in self._unread:
            return None
        match part.get("type"):
            case "tool":
                return self._call(event, part)
            case "text":
                return self._text(event, part)
            case "reasoning":
                remember(self._unread, str(part.get("id")))
        return None

    def _call(self, event: dict[str, Any], part: dict[str, Any]) -> object:
        session, part_id = str(part.get("sessionID")), str(part.get("id"))
        if member(part, "state", "status") not in _RUNNING:
            # It is taken to say that none runs, so that those that do are told once more.
            self._running.pop(session, None)
            return kept(event, _event({"sessionID": WHOLE, "part": _ENDED_CALL}))
        running = self._running.get(session, {})
        remember(self._running, session, running)
        told = kept(part, _CALL)
        said, now = hash(compact(told)), self._clock()
        known, at = running.get(part_id, (None, now))
        if known == said and now - at < _TOLD_SECONDS:
            return None
        if len(running) >= _MAX_CALLS:
            running.clear()
        running[part_id] = (said, now)
        return kept(event, _event({"sessionID": WHOLE, "part": _CALL}))

    def _text(self, event: dict[str, Any], part: dict[str, Any]) -> object:
        """Tell a text; where it comes as a whole with each word of it, as before OpenCode 1.2, only what is new."""
        part_id, text, new = str(part.get("id")), part.get("text"), member(event, "properties", "delta")
        before = self._lengths.pop(part_id, None)
        if isinstance(text, str) and isinstance(new, str):
            remember(self._lengths, part_id, len(text))
            if before is not None and before + len(new) == len(text) and text.endswith(new):
                ids = {"sessionID": part.get("sessionID"), "messageID": part.get("messageID"), "partID": part_id}
                return {"type": "message.part.delta", "properties": {**ids, "field": "text", "delta": new}}
        return kept(event, _event({"sessionID": WHOLE, "part": _TEXT}))
