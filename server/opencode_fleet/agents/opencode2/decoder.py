"""From OpenCode 2's events to the fleet's. Most need nothing else; some name a record that must be looked up."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from opencode_fleet.agents.opencode2.asks import Form, Permission
from opencode_fleet.agents.opencode2.conversation import text_part_id
from opencode_fleet.agents.opencode2.wire import Event, Problem, Retry, Session, ending_of
from opencode_fleet.agents.shapes import MILLISECONDS, telling_argument
from opencode_fleet.errors import NotFound
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
    TurnStopped,
)
from opencode_fleet.model import Status, is_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opencode_fleet import events
    from opencode_fleet.agents.opencode2.records import Records

MAX_REMEMBERED = 2_000
"""Texts, tool calls and prompts of one stream that are told apart; the oldest go first."""

_Data = dict[str, Any]


class Decoder:
    """Decodes the events of one stream, in their order."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._texts: OrderedDict[str, str] = OrderedDict()
        """Text parts that were seen to begin, so that all of their pieces come."""
        self._tools: OrderedDict[str, str] = OrderedDict()
        """The names of tool calls."""
        self._prompts: OrderedDict[str, str] = OrderedDict()
        """The prompt that each session began with last."""
        self._not_prompts: OrderedDict[str, str] = OrderedDict()
        """What else lay in inboxes."""
        self._retrying: OrderedDict[str, str] = OrderedDict()

    @classmethod
    def kinds(cls) -> frozenset[str]:
        """Return the kinds of events that say something."""
        return frozenset({*cls._LOOKING_UP, *cls._HANDLERS})

    async def decode(self, raw: object) -> list[events.Event]:
        """Return what an event says; unknown and malformed ones say nothing.

        Raises:
            InstanceError: a record that it names could not be fetched.
        """
        try:
            event = Event.model_validate(raw)
            if look_up := self._LOOKING_UP.get(event.type):
                return await look_up(self, event)
            handler = self._HANDLERS.get(event.type)
            return handler(self, event.data) if handler else []
        except (ValidationError, KeyError, TypeError, ValueError, NotFound):
            return []

    # -- what names a record -------------------------------------------------------------------------------------

    async def _on_permission(self, event: Event) -> list[events.Event]:
        ask = await self._records.permission(Permission.model_validate(event.data))
        return [AskOpened(ask)] if ask is not None else []

    async def _on_session(self, event: Event) -> list[events.Event]:
        return [SessionChanged(await self._records.fetch(_id(event.data)))]

    async def _on_created(self, event: Event) -> list[events.Event]:
        times = {"created": event.created, "updated": event.created}
        session = Session.model_validate({**event.data, "id": event.data["sessionID"], "time": times})
        return [SessionChanged(self._records.note(session.domain()))]

    async def _on_enqueued(self, event: Event) -> list[events.Event]:
        item = event.data["item"]
        if not isinstance(item, dict) or item.get("type") != "user":
            _remember(self._not_prompts, _id(event.data, "inboxID"))
            return []
        known = self._records.known(_id(event.data))
        if known is None:
            return []
        updated = max(known.updated, event.created / MILLISECONDS)
        return [SessionChanged(self._records.note(replace(known, updated=updated)))]

    # -- the others ----------------------------------------------------------------------------------------------

    def _on_deleted(self, data: _Data) -> list[events.Event]:
        self._records.forget(_id(data))
        return [SessionGone(_id(data))]

    def _on_started(self, data: _Data) -> list[events.Event]:
        return [StatusChanged(_id(data), Status())]

    def _on_ended(self, data: _Data) -> list[events.Event]:
        self._retrying.pop(_id(data), None)
        return [StatusChanged(_id(data), None)]

    def _on_interrupted(self, data: _Data) -> list[events.Event]:
        return [TurnStopped(_id(data)), *self._on_ended(data)]

    def _on_failed(self, data: _Data) -> list[events.Event]:
        problem = Problem.model_validate(data["error"]) if isinstance(data.get("error"), dict) else Problem()
        return [TurnFailed(_id(data), problem.describe()), *self._on_ended(data)]

    def _on_retry(self, data: _Data) -> list[events.Event]:
        retry = Retry.model_validate(data)
        _remember(self._retrying, _id(data))
        why = retry.error.describe() if retry.error else ""
        return [StatusChanged(_id(data), Status("retry", int(retry.attempt), why))]

    def _on_delivered(self, data: _Data) -> list[events.Event]:
        session_id, prompt_id = _id(data), _id(data, "inboxID")
        if prompt_id in self._not_prompts:
            return []
        _remember(self._prompts, session_id, prompt_id)
        return [PromptTaken(session_id, prompt_id)]

    def _on_step_started(self, data: _Data) -> list[events.Event]:
        session_id = _id(data)
        begun = AnswerChanged(session_id, _id(data, "assistantMessageID"), self._prompts.get(session_id, ""), "")
        if self._retrying.pop(session_id, None) is None:
            return [begun]
        return [StatusChanged(session_id, Status()), begun]

    def _on_step_ended(self, data: _Data) -> list[events.Event]:
        ended = ending_of(str(data.get("finish", "")))
        return [AnswerChanged(_id(data), _id(data, "assistantMessageID"), self._prompts.get(_id(data), ""), ended)]

    def _on_step_failed(self, data: _Data) -> list[events.Event]:
        message_id = _id(data, "assistantMessageID")
        return [AnswerChanged(_id(data), message_id, self._prompts.get(_id(data), ""), "failed")]

    def _on_text_started(self, data: _Data) -> list[events.Event]:
        _remember(self._texts, _part_id(data))
        return []

    def _on_text_delta(self, data: _Data) -> list[events.Event]:
        part_id, delta = _part_id(data), data["delta"]
        # Of a text whose beginning was missed the end brings all.
        if part_id not in self._texts or not isinstance(delta, str):
            return []
        return [TextChanged(_id(data), part_id, delta, is_whole=False)]

    def _on_text_ended(self, data: _Data) -> list[events.Event]:
        self._texts.pop(_part_id(data), None)
        text = data["text"]
        return [TextChanged(_id(data), _part_id(data), text, is_whole=True)] if isinstance(text, str) else []

    def _on_tool_named(self, data: _Data) -> list[events.Event]:
        name = str(data.get("name", ""))[:100]
        _remember(self._tools, _call_key(data), name)
        return [ToolChanged(_id(data), name)]

    def _on_tool_called(self, data: _Data) -> list[events.Event]:
        arguments = data["input"] if isinstance(data["input"], dict) else {}
        self._records.note_input(_id(data, "assistantMessageID"), str(data["id"])[:200], arguments)
        name = self._tools.get(_call_key(data), "")
        return [ToolChanged(_id(data), f"{name} {telling_argument(arguments)}".strip())]

    def _on_tool_ended(self, data: _Data) -> list[events.Event]:
        self._records.drop_input(_id(data, "assistantMessageID"), str(data["id"])[:200])
        self._tools.pop(_call_key(data), None)
        return [ToolChanged(_id(data), "")]

    def _on_form(self, data: _Data) -> list[events.Event]:
        return [AskOpened(Form.model_validate(data["form"]).domain())]

    def _on_permission_replied(self, data: _Data) -> list[events.Event]:
        return [AskSettled(_id(data), _id(data, "requestID"), str(data.get("reply", ""))[:20])]

    def _on_form_replied(self, data: _Data) -> list[events.Event]:
        return [AskSettled(_id(data), _id(data, "id"), "answered")]

    def _on_form_cancelled(self, data: _Data) -> list[events.Event]:
        return [AskSettled(_id(data), _id(data, "id"), "declined")]

    _LOOKING_UP: ClassVar[dict[str, Callable[[Decoder, Event], Awaitable[list[events.Event]]]]] = {
        "permission.asked": _on_permission,
        "session.created": _on_created,
        "session.forked": _on_session,
        "session.renamed": _on_session,
        "session.moved": _on_session,
        "session.agent.selected": _on_session,
        "session.model.selected": _on_session,
        "session.inbox.enqueued": _on_enqueued,
    }
    # Whatever happens to a step, only the end of the execution is the end of the turn.
    _HANDLERS: ClassVar[dict[str, Callable[[Decoder, _Data], list[events.Event]]]] = {
        "session.deleted": _on_deleted,
        "session.execution.started": _on_started,
        "session.execution.succeeded": _on_ended,
        "session.execution.interrupted": _on_interrupted,
        "session.execution.failed": _on_failed,
        "session.retry.scheduled": _on_retry,
        "session.inbox.delivered": _on_delivered,
        "session.step.started": _on_step_started,
        "session.step.ended": _on_step_ended,
        "session.step.failed": _on_step_failed,
        "session.text.started": _on_text_started,
        "session.text.delta": _on_text_delta,
        "session.text.ended": _on_text_ended,
        "session.tool.input.started": _on_tool_named,
        "session.tool.called": _on_tool_called,
        "session.tool.success": _on_tool_ended,
        "session.tool.failed": _on_tool_ended,
        "form.created": _on_form,
        "permission.replied": _on_permission_replied,
        "form.replied": _on_form_replied,
        "form.cancelled": _on_form_cancelled,
    }


def _id(data: _Data, key: str = "sessionID") -> str:
    value = data[key]
    if not is_id(value):
        raise ValueError(key)
    return str(value)


def _part_id(data: _Data) -> str:
    ordinal = data["ordinal"]
    if not isinstance(ordinal, int):
        raise TypeError("ordinal")
    return text_part_id(_id(data, "assistantMessageID"), ordinal)


def _call_key(data: _Data) -> str:
    return f"{_id(data, 'assistantMessageID')}:{str(data['id'])[:200]}"


def _remember(known: OrderedDict[str, str], key: str, value: str = "") -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > MAX_REMEMBERED:
        known.popitem(last=False)
