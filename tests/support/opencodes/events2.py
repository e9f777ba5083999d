"""OpenCode 2 driven without the relay: its event stream tapped, its sessions prompted, their asks settled."""

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
    from collections.abc import AsyncIterator
    from pathlib import Path

Event = dict[str, Any]
"""One event as sent (`id`, `type`, `data`, perhaps `location`), and `at`: when it came (`time.monotonic`)."""

_WAIT_SECONDS = 60.0


@asynccontextmanager
async def tapped2(client: httpx.AsyncClient) -> AsyncIterator[list[Event]]:
    """Listen to `/api/event`; the list that is given grows as events come. Connected once it is given."""
    events: list[Event] = []

    async def listen() -> None:
        async with aconnect_sse(client, "GET", "/api/event", timeout=None) as source:
            async for frame in source.aiter_sse():
                event = frame.json()
                event["at"] = time.monotonic()
                events.append(event)

    listener = asyncio.create_task(listen())
    try:
        await eventually_async(lambda: events or listener.done(), "the event stream", within=_WAIT_SECONDS)
        yield events
    finally:
        listener.cancel()
        with suppress(asyncio.CancelledError):
            await listener


class Session2:
    """A fresh session of an OpenCode 2, with the events of the whole process tapped."""

    def __init__(self, client: httpx.AsyncClient, session_id: str, events: list[Event]) -> None:
        self.client = client
        self.id = session_id
        self.events = events

    async def prompt(self, text: str, **body: object) -> dict[str, Any]:
        """Post a prompt, and return the item of the inbox that it is."""
        answer = await self.client.post(f"/api/session/{self.id}/prompt", json={"text": text, **body})
        item: dict[str, Any] = answer.raise_for_status().json()["data"]
        return item

    async def turn(self, text: str, **body: object) -> list[str]:
        """Post a prompt, wait for the next end of what runs, and return the types of all events of it so far."""
        before = self._ends()
        await self.prompt(text, **body)
        await self.ended(times=before + 1)
        return self.outline()

    async def ended(self, *, times: int = 1) -> str:
        """Wait until what runs in this session has ended so many times; return how it did, like `succeeded`."""
        await eventually_async(lambda: self._ends() >= times, "the end of the turn", within=_WAIT_SECONDS)
        last = [kind for kind in self.outline() if kind in _ENDS][-1]
        return last.rpartition(".")[2]

    async def seen(self, kind: str, *, times: int = 1) -> Event:
        """Wait until an event of that type has come so many times, in whatever session, and return the last."""
        await eventually_async(lambda: len(self._all(kind)) >= times, f"{times} x {kind}", within=_WAIT_SECONDS)
        return self._all(kind)[-1]

    async def permissions(self, session_id: str | None = None) -> list[dict[str, Any]]:
        """Return the open asks for a permission of this session, or of a subagent's."""
        return await self._data(f"/api/session/{session_id or self.id}/permission")

    async def decide(self, permission: dict[str, Any], decision: str) -> int:
        """Reply `once`, `always` or `reject` to an ask, in the session that it is of; return the HTTP status."""
        path = f"/api/session/{permission['sessionID']}/permission/{permission['id']}/reply"
        return (await self.client.post(path, json={"decision": decision})).status_code

    async def forms(self) -> list[dict[str, Any]]:
        """Return the open questions of this session."""
        return await self._data(f"/api/session/{self.id}/form")

    async def fill(self, form: dict[str, Any], answer: dict[str, Any]) -> int:
        """Answer a form by the keys of its fields; return the HTTP status."""
        path = f"/api/session/{form['sessionID']}/form/{form['id']}/reply"
        return (await self.client.post(path, json={"answer": answer})).status_code

    async def messages(self) -> list[dict[str, Any]]:
        """Return the last 200 messages of this session, oldest first."""
        return (await self._data(f"/api/session/{self.id}/message?limit=200"))[::-1]

    async def active(self) -> dict[str, Any]:
        """Return what runs in the process, by session."""
        running: dict[str, Any] = (await self.client.get("/api/session/active")).raise_for_status().json()["data"]
        return running

    async def interrupt(self) -> bool:
        """Interrupt what runs; tell whether something did."""
        answer = await self.client.post(f"/api/session/{self.id}/interrupt", json={})
        return bool(answer.raise_for_status().json()["interrupted"])

    def outline(self) -> list[str]:
        """Return the types of this session's events so far, equal ones in a row once."""
        kinds = [event["type"] for event in self.events if event["data"].get("sessionID") == self.id]
        return [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind]

    def streamed(self) -> str:
        """Return the text of all deltas so far, subagents' too."""
        return "".join(event["data"]["delta"] for event in self._all("session.text.delta"))

    async def answer(self) -> str:
        """Return the text of the last message of the model's."""
        said = [message for message in await self.messages() if message["type"] == "assistant"]
        return "".join(part["text"] for part in said[-1]["content"] if part["type"] == "text")

    def _ends(self) -> int:
        return sum(e["type"] in _ENDS and e["data"].get("sessionID") == self.id for e in self.events)

    def _all(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]

    async def _data(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.client.get(path)).raise_for_status().json()["data"]
        return found


_ENDS = frozenset(f"session.execution.{how}" for how in ("succeeded", "failed", "interrupted"))


@asynccontextmanager
async def new_session2(url: str, auth: httpx.Auth | None, directory: Path) -> AsyncIterator[Session2]:
    """Make a session for `directory` in the OpenCode 2 at `url`."""
    async with (
        httpx.AsyncClient(base_url=url, auth=auth, timeout=_WAIT_SECONDS, trust_env=False, verify=NO_TLS) as client,
        tapped2(client) as events,
    ):
        made = await client.post("/api/session", json={"location": {"directory": str(directory)}})
        yield Session2(client, made.raise_for_status().json()["data"]["id"], events)
