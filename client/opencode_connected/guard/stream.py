"""An event stream from the agent to one reader: without delay, filtered, and bounded where the reader is slow."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

from opencode_connected.guard.bodies import is_id
from opencode_connected.guard.routes import member

if TYPE_CHECKING:
    import aiohttp

    from opencode_connected.guard.reach import GuardedReach

MAX_BEHIND = 4 << 20
"""Bytes that wait for a slow reader, or of one event that is not whole yet; beyond that the stream ends."""
_MAX_SEEN = 10_000


class TooMuch(Exception):
    """The reader is too slow, or an event too long. Whoever reads opens the stream anew, and fetches the state."""


class EventFilter:
    """Takes the events of other directories out of OpenCode 2's stream, which is of the whole machine."""

    def __init__(self, reach: GuardedReach) -> None:
        self._reach = reach
        self._rest = bytearray()
        # Where events said that their session is: all that is left to tell by when a session is deleted.
        self._seen: dict[str, str] = {}

    async def feed(self, chunk: bytes) -> bytes:
        """Return what may be passed on, in the order in which it came.

        Raises:
            TooMuch: an event does not end.
            Unavailable: the agent cannot be asked where a session is.

        """
        self._rest += chunk
        *frames, rest = bytes(self._rest).split(b"\n\n") if b"\n\n" in self._rest else [bytes(self._rest)]
        if len(rest) > MAX_BEHIND:
            raise TooMuch
        if frames:
            self._rest = bytearray(rest)
        kept = [frame + b"\n\n" for frame in frames if await self._passes(frame)]
        return b"".join(kept)

    async def _passes(self, frame: bytes) -> bool:
        lines = frame.splitlines()
        if all(line.startswith(b":") for line in lines):
            return True
        data = b"\n".join(line[5:] for line in lines if line.startswith(b"data:"))
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return False
        kind = member(event, "type")
        if not isinstance(kind, str):
            return False
        if kind.startswith("server."):
            return True
        location = member(event, "location", "directory")
        session = member(event, "data", "sessionID")
        if not isinstance(session, str) or not is_id(session):
            return self._reach.allows(location)
        return await self._passes_of_session(kind, session, location)

    async def _passes_of_session(self, kind: str, session: str, location: object) -> bool:
        if kind in ("session.moved", "session.updated", "session.deleted"):
            self._reach.forget(session)
        if isinstance(location, str):
            self._note(session, location)
            return self._reach.allows(location)
        if kind == "session.deleted":
            return self._reach.allows(self._seen.pop(session, None))
        directory = await self._reach.directory(session)
        if directory is not None:
            self._note(session, directory)
        return self._reach.allows(directory)

    def _note(self, session: str, directory: str) -> None:
        self._seen.pop(session, None)
        if len(self._seen) >= _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[session] = directory


class _Behind:
    """What was read and not written yet, bounded in bytes."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, chunk: bytes) -> None:
        if self._size + len(chunk) > MAX_BEHIND:
            raise TooMuch
        self._chunks.append(chunk)
        self._size += len(chunk)
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def take(self) -> bytes | None:
        """Return all that waits; None at the end."""
        while not self._chunks:
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        taken = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        return taken


async def pass_on(
    request: web.BaseRequest, upstream: aiohttp.ClientResponse, only: EventFilter | None
) -> web.StreamResponse:
    """Answer `request` with the agent's events until one side ends.

    Raises:
        TooMuch: the reader is too slow, or an event too long; its connection is gone.

    """
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-store"})
    await response.prepare(request)
    behind = _Behind()

    async def read() -> None:
        try:
            async for chunk in upstream.content.iter_any():
                if passed := (await only.feed(chunk) if only else chunk):
                    behind.put(passed)
        except TooMuch:
            # Nothing else reaches somebody who does not read: the writer waits for room that never comes.
            if request.transport is not None:
                request.transport.abort()
            raise
        finally:
            behind.end()

    reader = asyncio.create_task(read())
    try:
        while (passed := await behind.take()) is not None:
            await response.write(passed)
        await reader
    except ConnectionError:
        if reader.done() and not reader.cancelled() and isinstance(reader.exception(), TooMuch):
            raise TooMuch from None
    finally:
        reader.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await reader
    return response
