"""An event stream from the agent to one reader: without delay, filtered, and bounded where the reader is slow."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from opencode_connected.guard.bodies import is_id
from opencode_connected.guard.refusals import AgentUnavailable
from opencode_connected.guard.routes import member
from opencode_connected.guard.thinning import compact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opencode_connected.guard.reach import GuardedReach
    from opencode_connected.guard.refusals import RefusalLog
    from opencode_connected.guard.thinning import Thinner

MAX_BEHIND = 4 << 20
"""Bytes that wait for a slow reader; beyond that the stream ends."""
MAX_EVENT = 9 << 20
"""Bytes of one event that is not whole yet: a message comes as one, with all its files (`routes.MAX_PROMPT`)."""
_MAX_SEEN = 10_000
_MOVES = frozenset({"session.moved", "session.updated", "session.deleted"})
"""Events after which a session may be in another directory."""


class TooMuch(Exception):
    """The reader is too slow, or an event too long. Whoever reads opens the stream anew, and fetches the state."""


class EventFilter:
    """Passes events on as `thinner` has them, of a stream of the whole machine only those of directories in `reach`.

    With `reach` None the agent's stream is of one directory, which was checked.
    """

    def __init__(self, reach: GuardedReach | None, thinner: Thinner) -> None:
        self._reach = reach
        self._thinner = thinner
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
        if len(rest) > MAX_EVENT:
            raise TooMuch
        if frames:
            self._rest = bytearray(rest)
        told = [frame for each in frames if (frame := await self._told(each))]
        return b"".join(told)

    async def _told(self, frame: bytes) -> bytes:
        lines = frame.splitlines()
        if all(line.startswith(b":") for line in lines):
            return frame + b"\n\n"
        data = b"\n".join(line[5:] for line in lines if line.startswith(b"data:"))
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return b""
        kind = member(event, "type")
        if isinstance(kind, str) and kind.startswith("server."):
            return frame + b"\n\n"
        if not isinstance(kind, str) or not await self._passes(kind, event):
            return b""
        return self._thinned(kind, event, frame)

    def _thinned(self, kind: str, event: dict[str, Any], frame: bytes) -> bytes:
        """Return what goes on of an event, which came as `frame`."""
        try:
            thinned = self._thinner.thin(kind, event)
            if thinned == event:
                return frame + b"\n\n"
            return b"" if thinned is None else b"data: " + compact(thinned) + b"\n\n"
        except RecursionError:
            # Python reads a little deeper than it writes.
            return b""

    async def _passes(self, kind: str, event: object) -> bool:
        reach = self._reach
        if reach is None:
            return True
        location = member(event, "location", "directory")
        session = member(event, "data", "sessionID")
        if not isinstance(session, str) or not is_id(session):
            return reach.allows(location)
        if kind in _MOVES:
            reach.forget(session)
        if kind not in self._thinner.kinds:
            return False
        return await self._passes_of_session(kind, session, location, reach)

    async def _passes_of_session(self, kind: str, session: str, location: object, reach: GuardedReach) -> bool:
        if isinstance(location, str):
            self._note(session, location)
            return reach.allows(location)
        if kind == "session.deleted":
            return reach.allows(self._seen.pop(session, None))
        directory = await reach.directory(session)
        if directory is not None:
            self._note(session, directory)
        return reach.allows(directory)

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
        self.has_begun = False
        self._changed = asyncio.Event()

    def put(self, chunk: bytes) -> None:
        if self._size + len(chunk) > MAX_BEHIND:
            raise TooMuch
        self._chunks.append(chunk)
        self._size += len(chunk)
        self.has_begun = True
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


class OpenStreams:
    """The event streams that are open, of all readers; `log` notes which had to be ended."""

    def __init__(self, log: RefusalLog) -> None:
        self._log = log
        self._open: set[_Behind] = set()

    def __len__(self) -> int:
        return len(self._open)

    def say(self, event: Mapping[str, object]) -> None:
        """Put an event of the guard's own into all of them."""
        frame = f"data: {json.dumps(event)}\n\n".encode()
        for behind in self._open:
            # The agent's own greeting comes first; and who is too far behind is about to be ended.
            if not behind.has_begun:
                continue
            with suppress(TooMuch):
                behind.put(frame)

    def end(self) -> None:
        """End all of them."""
        for behind in self._open:
            behind.end()

    async def pass_on(
        self, request: web.BaseRequest, upstream: aiohttp.ClientResponse, only: EventFilter
    ) -> web.StreamResponse:
        """Answer `request` with the agent's events until one side ends, or the reader is too slow."""
        behind = _Behind()
        self._open.add(behind)
        reader = asyncio.create_task(self._read(request, upstream, only, behind))
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-store"})
        try:
            await response.prepare(request)
            while (passed := await behind.take()) is not None:
                await response.write(passed)
        except ConnectionError:
            # The reader is gone, which is how streams end.
            return response
        finally:
            self._open.discard(behind)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        return response

    async def _read(
        self, request: web.BaseRequest, upstream: aiohttp.ClientResponse, only: EventFilter, behind: _Behind
    ) -> None:
        try:
            async for chunk in upstream.content.iter_any():
                if passed := await only.feed(chunk):
                    behind.put(passed)
        except TooMuch:
            self._log.add("slow", "ended an event stream: its reader is too slow, or an event is too long")
            # Nothing else reaches somebody who does not read: the writer waits for room that never comes.
            if request.transport is not None:
                request.transport.abort()
        except (aiohttp.ClientError, TimeoutError, AgentUnavailable):
            # The agent is gone; the reader sees the end, and opens the stream anew.
            return
        finally:
            behind.end()
