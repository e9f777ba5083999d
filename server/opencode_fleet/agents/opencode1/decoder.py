"""From OpenCode 1's events to the fleet's. Which parts are the agent's text is known only from earlier ones."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from opencode_fleet.agents.opencode1.asks import Permission, Question
from opencode_fleet.agents.opencode1.wire import (
    Event,
    MessageError,
    MessageInfo,
    Part,
    Session,
    Status,
)
from opencode_fleet.events import (
    AnswerChanged,
    AskOpened,
    AskSettled,
    PromptTaken,
    SessionChanged,
    SessionGone,
    StatusChanged,
    TextChanged,
    ToolChanged,
    TurnFailed,
)
from opencode_fleet.model import is_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_fleet import events

MAX_REMEMBERED = 2000
"""Messages and parts of one stream that are told apart; the oldest go first."""


class Decoder:
    """Decodes the events of one stream, in their order."""

    def __init__(self) -> None:
        self._not_answers: OrderedDict[str, None] = OrderedDict()
        """Messages whose text the agent does not say: a person's, a summary."""
        self._texts: OrderedDict[str, None] = OrderedDict()

    @classmethod
    def kinds(cls) -> frozenset[str]:
        """Return the kinds of events that say something."""
        return frozenset(cls._HANDLERS)

    def decode(self, raw: object) -> list[events.Event]:
        """Return what an event says; unknown and malformed ones say nothing."""
        try:
            event = Event.model_validate(raw)
            handler = self._HANDLERS.get(event.type)
            return handler(self, event.properties) if handler else []
        except (ValidationError, KeyError, TypeError, ValueError):
            return []

    def _on_status(self, properties: dict[str, Any]) -> list[events.Event]:
        return [StatusChanged(_id(properties), Status.model_validate(properties["status"]).domain())]

    def _on_idle(self, properties: dict[str, Any]) -> list[events.Event]:
        return [StatusChanged(_id(properties), None)]

    def _on_session(self, properties: dict[str, Any]) -> list[events.Event]:
        return [SessionChanged(Session.model_validate(properties["info"]).domain())]

    def _on_session_deleted(self, properties: dict[str, Any]) -> list[events.Event]:
        return [SessionGone(Session.model_validate(properties["info"]).id)]

    def _on_error(self, properties: dict[str, Any]) -> list[events.Event]:
        error = MessageError.model_validate(properties["error"])
        return [TurnFailed(_id(properties), error.describe(), error.is_stop)]

    def _on_permission(self, properties: dict[str, Any]) -> list[events.Event]:
        return [AskOpened(Permission.model_validate(properties).domain())]

    def _on_question(self, properties: dict[str, Any]) -> list[events.Event]:
        return [AskOpened(Question.model_validate(properties).domain())]

    def _on_permission_replied(self, properties: dict[str, Any]) -> list[events.Event]:
        return [AskSettled(_id(properties), _id(properties, "requestID"), str(properties.get("reply", ""))[:20])]

    def _on_question_replied(self, properties: dict[str, Any]) -> list[events.Event]:
        return [AskSettled(_id(properties), _id(properties, "requestID"), "answered")]

    def _on_question_rejected(self, properties: dict[str, Any]) -> list[events.Event]:
        return [AskSettled(_id(properties), _id(properties, "requestID"), "declined")]

    def _on_message(self, properties: dict[str, Any]) -> list[events.Event]:
        info = MessageInfo.model_validate(properties["info"])
        if not is_id(info.session_id):
            return []
        if info.role != "assistant" or info.is_summary:
            self._remember(self._not_answers, info.id)
            return [PromptTaken(info.session_id, info.id)] if info.role == "user" else []
        return [AnswerChanged(info.session_id, info.id, info.parent_id, info.ended)]

    def _on_part(self, properties: dict[str, Any]) -> list[events.Event]:
        part = Part.model_validate(properties["part"])
        if not is_id(part.session_id) or part.message_id in self._not_answers:
            return []
        if part.type == "text" and not part.synthetic:
            self._remember(self._texts, part.id)
            return [TextChanged(part.session_id, part.id, part.text, is_whole=True)]
        if part.type == "tool":
            call = part.call()
            running = call.status in {"pending", "running"}
            return [ToolChanged(part.session_id, f"{call.name} {call.title}".strip() if running else "")]
        return []

    def _on_delta(self, properties: dict[str, Any]) -> list[events.Event]:
        part_id, delta = str(properties["partID"]), str(properties["delta"])
        # Reasoning's deltas look the same: a part not known to be text is not shown.
        if properties.get("field") != "text" or part_id not in self._texts:
            return []
        return [TextChanged(_id(properties), part_id, delta, is_whole=False)]

    @staticmethod
    def _remember(known: OrderedDict[str, None], key: str) -> None:
        known[key] = None
        while len(known) > MAX_REMEMBERED:
            known.popitem(last=False)

    _HANDLERS: ClassVar[dict[str, Callable[[Decoder, dict[str, Any]], list[events.Event]]]] = {
        "session.status": _on_status,
        "session.idle": _on_idle,
        "session.created": _on_session,
        "session.updated": _on_session,
        "session.deleted": _on_session_deleted,
        "session.error": _on_error,
        "permission.asked": _on_permission,
        "question.asked": _on_question,
        "permission.replied": _on_permission_replied,
        "question.replied": _on_question_replied,
        "question.rejected": _on_question_rejected,
        "message.updated": _on_message,
        "message.part.updated": _on_part,
        "message.part.delta": _on_delta,
    }


def _id(properties: dict[str, Any], key: str = "sessionID") -> str:
    value = properties[key]
    if not is_id(value):
        raise ValueError(key)
    return str(value)
