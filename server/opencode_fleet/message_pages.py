"""Pages of a conversation: the newest messages, those before one of them, and messages with all that they hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from opencode_common.text import one_line
from opencode_fleet.errors import BadAnswer, NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opencode_fleet.agent import Agent
    from opencode_fleet.model import Message

LOOKED_BACK = 1_000
"""Messages that are paged through for an old one."""
MAX_DETAILED = 20
"""Messages that are fetched by themselves, the newest with tool calls: each is a call of its own."""
DETAILED_AT_ONCE = 4


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
    """Return the messages, of the newest with tool calls all that these told and changed.

    One that is too large, or gone meanwhile, stays as it is.

    Raises:
        InstanceError: see `errors`.
    """
    slots = asyncio.Semaphore(DETAILED_AT_ONCE)
    calling = [message.id for message in messages if any(part.kind == "tool" for part in message.parts)]
    wanted = set(calling[-MAX_DETAILED:])

    async def detailed(message: Message) -> Message:
        if message.id not in wanted:
            return message
        async with slots:
            try:
                return await agent.message(session_id, message.id)
            except (NotFound, BadAnswer):
                return message

    return list(await asyncio.gather(*map(detailed, messages)))
