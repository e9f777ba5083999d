"""OpenCode driven without the relay: its event stream tapped, its sessions prompted, what happened outlined."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx
from httpx_sse import aconnect_sse

from support.chat.plain_http import NO_TLS
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
Event = dict[str, Any]
"""One event as sent (`id`, `type`, `properties`), and `at`: when it came (`time.monotonic`, seconds)."""

PLAIN_TURN = [
    "user",
    "text full",
    "busy",
    "assistant",
    "step-start",
    "text",
    "delta",
    "text full",
    "step-finish",
    "assistant stop",
    "busy",
    "idle",
    "session.idle",
]
"""The outline of a plain turn, from the prompt to the end."""


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


class TappedSession:
    """A fresh session of an OpenCode, with the events of that whole process tapped."""

    def __init__(self, client: httpx.AsyncClient, session_id: str, events: list[Event]) -> None:
        self.client = client
        self.id = session_id
        self.events = events

    async def prompt(self, text: str, **body: object) -> None:
        """Post a prompt; `body` replaces or adds fields. Returns once it is accepted."""
        body = {"parts": [{"type": "text", "text": text}], **body}
        (await self.client.post(f"/session/{self.id}/prompt_async", json=body)).raise_for_status()

    async def turn(self, text: str, **body: object) -> list[str]:
        """Post a prompt, wait for the next end of a turn, and return the outline of all that happened so far."""
        before = self.outline().count("session.idle")
        await self.prompt(text, **body)
        await eventually_async(
            lambda: self.outline().count("session.idle") > before, "the end of the turn", within=30
        )
        return self.outline()

    async def seen(self, kind: str, *, times: int = 1) -> Event:
        """Wait until an event of that type has come so many times, in whatever session, and return the last."""
        await eventually_async(lambda: len(self._all(kind)) >= times, f"{times} x {kind}", within=30)
        return self._all(kind)[-1]

    async def messages(self) -> list[dict[str, Any]]:
        """Return all messages of this session, oldest first."""
        found: list[dict[str, Any]] = (await self.client.get(f"/session/{self.id}/message")).json()
        return found

    async def abort(self) -> None:
        """Abort what runs."""
        await self.client.post(f"/session/{self.id}/abort")

    def outline(self) -> list[str]:
        """Return what happened in this session, see `outline`."""
        return outline(self.events, self.id)

    def streamed(self) -> str:
        """Return the text of all deltas so far, subagents' and reasoning's too."""
        return "".join(event["properties"]["delta"] for event in self._all("message.part.delta"))

    def _all(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]


@asynccontextmanager
async def new_session(url: str) -> AsyncIterator[TappedSession]:
    """Make a session in the OpenCode at `url`."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=NO_TLS) as client,
        tapped(client) as events,
    ):
        session_id = (await client.post("/session", json={})).json()["id"]
        yield TappedSession(client, session_id, events)


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
