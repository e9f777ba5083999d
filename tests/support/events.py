"""OpenCode's event stream, tapped by a test beside whatever else listens."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from httpx_sse import aconnect_sse

from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import httpx

Event = dict[str, Any]
"""One event as sent (`id`, `type`, `properties`), and `at`: when it came (`time.monotonic`, seconds)."""


@asynccontextmanager
async def tapped(client: httpx.AsyncClient) -> AsyncIterator[list[Event]]:
    """Listen to `/event`; the list that is given grows as events come. Connected once it is given."""
    events: list[Event] = []

    async def listen() -> None:
        async with aconnect_sse(client, "GET", "/event", timeout=None) as source:
            async for frame in source.aiter_sse():
                event = frame.json()
                event["at"] = time.monotonic()
                events.append(event)

    listener = asyncio.create_task(listen())
    try:
        await eventually_async(lambda: events or listener.done(), "the event stream")
        yield events
    finally:
        listener.cancel()
        with suppress(asyncio.CancelledError):
            await listener


def session_of(event: Event) -> str | None:
    """Return the session that an event is about."""
    found: str | None = event["properties"].get("sessionID")
    return found


def outline(events: Iterable[Event], session_id: str) -> list[str]:
    """Return what happened in a session, one word an event: the order that a driver relies on.

    Left out is what a driver does not need: `session.updated`, the repeated user message, the busy that is said
    again when the model begins to answer. Equal words in a row count once.
    """
    words: list[str] = []
    for event in events:
        if session_of(event) != session_id:
            continue
        word = _word(event)
        last = words[-1] if words else ""
        if word and word != last and (last, word) != ("assistant", "busy"):
            words.append(word)
    return words


def _word(event: Event) -> str:
    kind, properties = event["type"], event["properties"]
    match kind:
        case "session.updated" | "session.diff" | "session.created":
            return ""
        case "session.status":
            return str(properties["status"]["type"])
        case "message.updated":
            return _message_word(properties["info"])
        case "message.part.updated":
            return _part_word(properties["part"])
        case "message.part.delta":
            return "delta"
        case _:
            return str(kind)


def _message_word(info: dict[str, Any]) -> str:
    if info["role"] == "user":
        return "" if "summary" in info else "user"
    if "error" in info:
        return f"assistant {info['error']['name']}"
    return f"assistant {info['finish']}" if "finish" in info else "assistant"


def _part_word(part: dict[str, Any]) -> str:
    match part["type"]:
        case "tool":
            return f"{part['tool']} {part['state']['status']}"
        case "text" | "reasoning" as kind:
            return f"{kind} full" if part["text"] else kind
        case kind:
            return str(kind)
