"""Pages of a conversation: the newest messages, those before one of them, and messages with all that they hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from opencode_common.text import one_line
from opencode_fleet.agents.parallel import in_parallel
from opencode_fleet.errors import BadAnswer, NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opencode_fleet.agent import Agent
    from opencode_fleet.model import Message, Part

LOOKED_BACK = 1_000
"""Messages that are paged through for an old one."""
MAX_DETAILED = 20
"""Messages that are fetched by themselves, the newest with tool calls: each is a call of its own."""
MAX_DETAILS = 8_000_000
"""Characters that come before no further message is fetched by itself."""
DETAIL_KEPT = 10_000
"""Characters that are kept of an output's end, and of a diff's beginning: more than anybody is shown."""


class MessagePage(NamedTuple):
    """Messages in a row, oldest first."""

    messages: list[Message]
    has_older: bool


async def newest_page(
    agent: Agent, session_id: str, limit: int, arrived: Callable[[int], None] | None = None
) -> MessagePage:
    """Return the newest messages. Raises `InstanceError`."""
    # One more than is wanted: it tells that there are older ones.
    return _last(await agent.messages(session_id, limit + 1, arrived=arrived), limit)


async def page_before(
    agent: Agent, session_id: str, before: str, limit: int, arrived: Callable[[int], None] | None = None
) -> MessagePage:
    """Return the messages before the one of the id `before`.

    Raises:
        Refused: it is none of the session's last `LOOKED_BACK` messages.
        InstanceError: see `errors`.
    """

    def is_enough(found: list[Message]) -> bool:
        return _place(found, before) > limit

    found = await agent.messages(session_id, LOOKED_BACK, until=is_enough, arrived=arrived)
    place = _place(found, before)
    if place < 0:
        raise Refused(
            f"{one_line(before, 80)} is no message of session {session_id}, or too far back to be found; `read` "
            "without `before` shows the newest"
        )
    return _last(found[:place], limit)


def _place(messages: Sequence[Message], message_id: str) -> int:
    return next((place for place, message in enumerate(messages) if message.id == message_id), -1)


def _last(messages: list[Message], limit: int) -> MessagePage:
    return MessagePage(messages[-limit:], len(messages) > limit)


async def with_details(agent: Agent, session_id: str, messages: Sequence[Message]) -> list[Message]:
    """Return the messages, of the newest with tool calls the most of what these told and changed.

    One that is too large, gone meanwhile, or beyond what there is room for stays as it is.

    Raises:
        InstanceError: see `errors`.
    """
    calling = [message.id for message in messages if any(part.kind == "tool" for part in message.parts)]
    room = MAX_DETAILS

    async def fetched(message_id: str) -> Message | None:
        nonlocal room
        if room <= 0:
            return None
        try:
            message = await agent.message(session_id, message_id)
        except (NotFound, BadAnswer):
            return None
        room -= sum(map(_size, message.parts))
        return replace(message, parts=tuple(map(_cut, message.parts)))

    # The newest first: they matter the most.
    wanted = calling[: -MAX_DETAILED - 1 : -1]
    detailed = dict(zip(wanted, await in_parallel(wanted, fetched), strict=True))
    return [detailed.get(message.id) or message for message in messages]


def _size(part: Part) -> int:
    return len(part.text) + (len(part.call.output) + len(part.call.diff) if part.call else 0)


def _cut(part: Part) -> Part:
    if part.call is None:
        return part
    call = replace(part.call, output=part.call.output[-DETAIL_KEPT:], diff=part.call.diff[:DETAIL_KEPT])
    return replace(part, call=call)
