"""Calls to the agent: bounded in number, time and size, and made again where the agent has moved meanwhile."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from opencode_connected.guard.long_texts import LongTexts
from opencode_connected.guard.refusals import AgentUnavailable, TooLong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from opencode_connected.guard.upstream import Target, Upstream

MAX_CALLS = 32
"""At once; more wait."""
MAX_READ = 8 << 20
"""Bytes of an answer that is read as a whole."""
MAX_EMPTIED = 256 << 20
"""Bytes of an answer whose long texts are emptied while it is read: it is bounded by what is left of it, too."""
_WAIT_SECONDS = 10.0
"""For one of the calls under way to end, before a further one is refused."""
_CONNECT_SECONDS = 5.0
_SILENT_SECONDS = 120.0
"""Without a byte: the first call in a directory loads it, and hooks of plugins may take half a minute."""
_STREAM_SILENT_SECONDS = 60.0
"""OpenCode sends a heartbeat every ten or fifteen seconds."""
_KEPT_SECONDS = 5.0
"""For which a connection is kept to read more; OpenCode ends idle ones after ten."""
_BUFFER_BYTES = 1 << 18
_GONE = "OpenCode does not answer on that laptop: start it there, or wait until it is back"


@dataclass(frozen=True)
class _Call:
    """A request to the agent, as it goes out; `path` with its query."""

    method: str
    path: str
    data: bytes | None
    accept: str


class GuardedCalls:
    """Calls one agent through whoever knows where it is. Close it with `close`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._free = asyncio.Semaphore(MAX_CALLS)
        self._moving = asyncio.Lock()
        self._reading = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_SECONDS))
        # What changes something goes out on a connection of its own: a kept one may be closed at that moment, and
        # nobody could tell whether a prompt arrived.
        self._acting = _session(aiohttp.TCPConnector(limit=0, force_close=True))

    async def close(self) -> None:
        """Close all connections."""
        await self._reading.close()
        await self._acting.close()

    async def target(self) -> Target:
        """Return where the agent is."""
        target = await self._upstream.target()
        if target is None:
            raise AgentUnavailable(_GONE, status=503)
        return target

    @asynccontextmanager
    async def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a call and give its answer, to be read inside.

        Raises:
            Unavailable: there is none, or none that may be passed on.

        """
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise AgentUnavailable(
                f"{MAX_CALLS} calls to OpenCode are under way: try again in a minute", status=503
            ) from None
        try:
            data = None if body is None else json.dumps(body).encode()
            response = await self._open(_Call(method, path + _query(query or {}), data, "application/json"))
            try:
                yield response
            except (aiohttp.ClientError, TimeoutError) as error:
                raise AgentUnavailable("OpenCode did not finish its answer: try again") from error
            finally:
                # The connection of one that was read to its end is already kept for the next call.
                response.close()
        finally:
            self._free.release()

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open an event stream; it is none of the counted calls."""
        response = await self._open(_Call("GET", path + _query(query), None, "text/event-stream"))
        try:
            yield response
        finally:
            response.close()

    async def fetch(
        self, path: str, query: Mapping[str, str] | None = None, *, is_emptied: bool = False
    ) -> tuple[int, object]:
        """Return status and JSON of a GET, perhaps without its long texts; None where it is no JSON."""
        async with self.call("GET", path, query) as response:
            return response.status, parse(response, await read(response, is_emptied=is_emptied))

    async def _open(self, call: _Call) -> aiohttp.ClientResponse:
        """Send a request; once more where the agent has moved and the request cannot have been acted on."""
        target = await self.target()
        for is_last in (False, True):
            try:
                response = await self._send(call, target)
            except (aiohttp.ClientError, TimeoutError) as error:
                refused = isinstance(error, aiohttp.ClientConnectorError)
                ended = call.method == "GET" and not isinstance(error, TimeoutError)
                if is_last or not (refused or ended):
                    raise AgentUnavailable(_GONE, status=503 if refused else 502) from error
            else:
                if response.status != 401:
                    return _passable(response)
                response.close()
            # A refused connection and a 401 say that nothing was done, so even a prompt may be sent again.
            if not is_last:
                target = await self._moved(target)
        raise AgentUnavailable(
            "OpenCode wants another password than the guard knows: start opencode-connected anew there"
        )

    async def _send(self, call: _Call, target: Target) -> aiohttp.ClientResponse:
        silent = _STREAM_SILENT_SECONDS if call.accept == "text/event-stream" else _SILENT_SECONDS
        session = self._reading if call.method == "GET" else self._acting
        return await session.request(
            call.method,
            # Built from checked parts: nothing in it is to be quoted once more, or less.
            URL(f"{target.url}{call.path}", encoded=True),
            data=call.data,
            headers=_headers(target, call.accept, call.data),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silent),
        )

    async def _moved(self, seen: Target) -> Target:
        async with self._moving:
            known = await self._upstream.target()
            if known is not None and known != seen:
                return known
            target = await self._upstream.moved(seen)
        if target is None:
            raise AgentUnavailable(_GONE, status=503)
        return target


async def read(response: aiohttp.ClientResponse, *, is_emptied: bool = False) -> bytes:
    """Return the whole body, or, if it is to be emptied, that JSON without its long texts.

    Raises:
        TooLong: it is longer than may be read as a whole.

    """
    chunks = []
    texts = LongTexts() if is_emptied else None
    most = MAX_EMPTIED if is_emptied else MAX_READ
    # What it says of its size saves reading in vain.
    came, size, told = 0, 0, response.content_length or 0
    async for piece in response.content.iter_any():
        chunk = texts.emptied(piece) if texts else piece
        came += len(piece)
        size += len(chunk)
        if max(came, told) > most or size > MAX_READ:
            raise TooLong(f"OpenCode answered more than {MAX_READ >> 20} MiB: ask for less at once")
        chunks.append(chunk)
    return b"".join(chunks)


def parse(response: aiohttp.ClientResponse, content: bytes) -> object:
    """Return the JSON of an answer that was read; None where it is none."""
    if response.content_type != "application/json":
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_BUFFER_BYTES,
    )


def _query(query: Mapping[str, str]) -> str:
    return f"?{urlencode(query, quote_via=quote, safe='')}" if query else ""


def _headers(target: Target, accept: str, data: bytes | None) -> dict[str, str]:
    headers = {"accept": accept, "accept-encoding": "identity"}
    if target.authorization is not None:
        headers["authorization"] = target.authorization
    if data is not None:
        headers["content-type"] = "application/json"
    return headers


def _passable(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    """Return `response` unless it is a redirect or something that was packed."""
    if 300 <= response.status < 400 or response.headers.get("content-encoding", "identity") != "identity":
        response.close()
        raise AgentUnavailable(
            "what answers in OpenCode's place on that laptop is not OpenCode: start OpenCode there"
        )
    return response
