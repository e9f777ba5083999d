"""Instances that misbehave, one way each: what a stolen laptop or a strange program on a port may answer.

Where a behaviour is about one route only, the others answer like a healthy idle instance, so that a driver
gets as far as the fault.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from support.fleet.registry import registration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    Behaviour = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
    """Answers the request for a path (without its query) on a connection that is closed afterwards."""

TRAP = "/trap"
"""Where `redirect` points: a request for it proves that a redirect was followed."""

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\u202e\u0000\r\n\x9b5n\ud83d</data>"
"""Terminal escapes, a bidirectional override, control characters, half an emoji, and an end of some delimiter."""

_SESSION_ID = "ses_df176f67cffehdS2GK3DWnHZ0F"
_MEGABYTE = 1_000_000


class HostileInstance:
    """A server on a free loopback port with one of `BEHAVIOURS`; an async context manager."""

    def __init__(self, behaviour: str) -> None:
        self.name = behaviour.replace("_", "-")
        self.port = 0
        self.paths: list[str] = []
        """The paths that were asked for, queries included, in their order."""
        self.heads: list[bytes] = []
        """The heads of these requests, as they came."""
        self._behave = BEHAVIOURS[behaviour]
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def registration(self) -> dict[str, object]:
        """Return a registration that leads here."""
        return registration(self.name, self.port, cwd="/home/hostile")

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._answer(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever talks to this server is expected to hang up on it.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                self.paths.append(path)
                self.heads.append(head)
                await self._behave(path.partition("?")[0], writer)
            finally:
                writer.close()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(0)  # drain does not yield while the socket takes everything


async def _respond(writer: asyncio.StreamWriter, body: bytes, *headers: str, status: str = "200 OK") -> None:
    lines = [f"HTTP/1.1 {status}", "connection: close", *headers, "", ""]
    await _send(writer, "\r\n".join(lines).encode() + body)


async def _json(writer: asyncio.StreamWriter, body: bytes) -> None:
    await _respond(writer, body, "content-type: application/json", f"content-length: {len(body)}")


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _healthy(path: str, writer: asyncio.StreamWriter, *, text: str = "a title") -> None:
    """Answer like an idle instance with one session; `text` stands in every string that is free."""
    session = {
        "id": _SESSION_ID,
        "projectID": "global",
        "directory": f"/home/{text}",
        "title": text,
        "version": text,
        "time": {"created": 1, "updated": 2},
    }
    info = {"id": "msg_20e8909b9001bF3gfteAJn4aB2", "sessionID": _SESSION_ID, "role": "user", "time": {"created": 1}}
    part = {"id": "prt_20e8909c000137TROWG3hzAz7h", "type": "text", "text": text}
    answers: dict[str, object] = {
        "/global/health": {"healthy": True, "version": text},
        "/path": {"directory": f"/home/{text}", "worktree": "/", "home": text, "state": text, "config": text},
        "/session": [session],
        f"/session/{_SESSION_ID}": session,
        f"/session/{_SESSION_ID}/message": [{"info": info, "parts": [part]}],
        "/session/status": {},
    }
    if path == "/event":
        await _open_stream(writer)
        await _for_ever()
    else:
        await _json(writer, json.dumps(answers.get(path, [])).encode())


async def _open_stream(writer: asyncio.StreamWriter) -> None:
    connected = b'data: {"id":"evt_1","type":"server.connected","properties":{}}\n\n'
    await _respond(writer, connected, "content-type: text/event-stream")


async def _closes_at_once(path: str, writer: asyncio.StreamWriter) -> None:
    del path, writer


async def _unauthorized(path: str, writer: asyncio.StreamWriter) -> None:
    del path
    await _respond(writer, b"", "content-length: 0", status="401 Unauthorized")


async def _html(path: str, writer: asyncio.StreamWriter) -> None:
    del path
    await _respond(writer, b"<!doctype html><title>OpenCode</title>", "content-type: text/html")


async def _redirect(path: str, writer: asyncio.StreamWriter) -> None:
    if path == TRAP:
        await _healthy("/global/health", writer)
    else:
        await _respond(writer, b"", f"location: {TRAP}", "content-length: 0", status="302 Found")


async def _garbage(path: str, writer: asyncio.StreamWriter) -> None:
    del path
    await _json(writer, b'{"healthy": tru\xff\xfe')


async def _wrong_types(path: str, writer: asyncio.StreamWriter) -> None:
    del path
    await _json(writer, b'{"healthy": [], "id": {}, "time": null, "title": 1e999, "properties": false}')


async def _deeply_nested(path: str, writer: asyncio.StreamWriter) -> None:
    del path
    await _json(writer, b"[" * 200_000 + b"]" * 200_000)


async def _endless_body(path: str, writer: asyncio.StreamWriter) -> None:
    del path
    await _respond(writer, b"[", "content-type: application/json")
    while True:
        await _send(writer, b" " * 65_536)


async def _endless_headers(path: str, writer: asyncio.StreamWriter) -> None:
    del path
    await _send(writer, b"HTTP/1.1 200 OK\r\n")
    while True:
        await _send(writer, b"x-filler: " + b"x" * 4096 + b"\r\n")


async def _slow_headers(path: str, writer: asyncio.StreamWriter) -> None:
    """Give one byte now and then, always in time for a timeout per read."""
    del path
    await _send(writer, b"HTTP/1.1 200 OK\r\nx-slow: ")
    while True:
        await _send(writer, b"x")
        await asyncio.sleep(0.1)


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(b"[" + b" " * (50 * _MEGABYTE) + b"]", compresslevel=1)


async def _gzip_bomb(path: str, writer: asyncio.StreamWriter) -> None:
    del path
    headers = ("content-type: application/json", "content-encoding: gzip", f"content-length: {len(_bomb())}")
    await _respond(writer, _bomb(), *headers)


async def _escapes(path: str, writer: asyncio.StreamWriter) -> None:
    await _healthy(path, writer, text=ESCAPES)


async def _stalled_stream(path: str, writer: asyncio.StreamWriter) -> None:
    """Be healthy in everything but heartbeats."""
    await _healthy(path, writer)


async def _stream_of_html(path: str, writer: asyncio.StreamWriter) -> None:
    await (_html if path == "/event" else _healthy)(path, writer)


async def _stream_ends(path: str, writer: asyncio.StreamWriter) -> None:
    """End the event stream right after its first event, every time."""
    if path == "/event":
        await _open_stream(writer)
    else:
        await _healthy(path, writer)


async def _huge_event(path: str, writer: asyncio.StreamWriter) -> None:
    """Send one well-formed event of 8 MB in one line, then stay healthy."""
    if path == "/event":
        await _open_stream(writer)
        text = b'{"id":"evt_2","type":"message.part.updated","properties":{"part":{"text":"'
        await _send(writer, b"data: " + text + b"x" * (8 * _MEGABYTE) + b'"}}}\n\n')
        await _for_ever()
    await _healthy(path, writer)


async def _endless_event(path: str, writer: asyncio.StreamWriter) -> None:
    """Send one line that never ends."""
    if path == "/event":
        await _open_stream(writer)
        await _send(writer, b"data: ")
        while True:
            await _send(writer, b"x" * 65_536)
    await _healthy(path, writer)


async def _flood(path: str, writer: asyncio.StreamWriter) -> None:
    """Send well-formed events as fast as they are read."""
    if path == "/event":
        await _open_stream(writer)
        event = b'data: {"id":"evt_3","type":"session.idle","properties":{"sessionID":"ses_x"}}\n\n'
        while True:
            await _send(writer, event * 100)
    await _healthy(path, writer)


BEHAVIOURS: dict[str, Behaviour] = {
    behaviour.__name__.removeprefix("_"): behaviour
    for behaviour in (
        _closes_at_once,
        _deeply_nested,
        _endless_body,
        _endless_event,
        _endless_headers,
        _escapes,
        _flood,
        _garbage,
        _gzip_bomb,
        _html,
        _huge_event,
        _redirect,
        _slow_headers,
        _stalled_stream,
        _stream_ends,
        _stream_of_html,
        _unauthorized,
        _wrong_types,
    )
}
"""All behaviours by name."""
