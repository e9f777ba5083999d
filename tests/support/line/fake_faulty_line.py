"""A line on which everything goes wrong at random: a TCP proxy between the server and an instance, as a tunnel is.

What befalls a request is drawn when it begins, from a generator that the caller seeds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from random import Random
    from types import TracebackType

_CHUNK: Final = 65_536
_METHODS: Final = (b"GET ", b"POST ", b"PATCH ", b"DELETE ", b"PUT ")
_STREAMS: Final = (b"GET /event", b"GET /api/event")
LONGEST_HANG: Final = 1.5
"""Seconds for which a connection stays half open before it ends."""
LONGEST_START: Final = 400
"""Bytes of an answer that come through before it breaks."""
LONGEST_STREAM: Final = 60
"""Pieces of an event stream that come through before it breaks."""


@dataclass
class _Fate:
    """What befalls one request and its answer."""

    kind: str = ""
    """`lost`, `unanswered`, `broken`, `half open` or nothing."""
    left: int = 0
    """Bytes, or pieces of a stream, of the answer that still come through."""
    is_stream: bool = False


class FaultyLine:
    """Forwards connections on a free loopback port to `target_port`; an async context manager.

    Of its requests the share `rate` goes wrong: lost before it arrives, or acted on with its answer lost, broken in
    the middle or kept back by a half-open connection. Of event streams five times that share break.
    """

    def __init__(self, target_port: int, random: Random, rate: float) -> None:
        self.port = 0
        self.rate = rate
        self.befell: Counter[str] = Counter()
        """How many requests met with what."""
        self.target_port = target_port
        """Where new connections lead."""
        self._random = random
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    async def cut(self) -> None:
        """End all connections and refuse new ones, as a port does whose tunnel is gone."""
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = tuple(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def mend(self) -> None:
        """Accept connections (again), on the same port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._forward(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.target_port)
            fate = _Fate()
            ways = (
                asyncio.create_task(_carry(_pieces(reader), far, lambda data: self._request(fate, data))),
                asyncio.create_task(_carry(_pieces(far_reader), writer, lambda data: self._answer(fate, data))),
            )
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # nobody there: the near side learns it from the end of its connection
        finally:
            for each in (writer, far):
                if each is not None:
                    each.close()

    async def _request(self, fate: _Fate, data: bytes) -> bytes | None:
        """Return what of a piece of a request goes on; None: the connection ends."""
        if data.startswith(_METHODS):
            self._draw(fate, is_stream=data.startswith(_STREAMS))
        return None if fate.kind == "lost" else data

    def _draw(self, fate: _Fate, *, is_stream: bool) -> None:
        fate.kind, fate.is_stream = "", is_stream
        if self._random.random() < self.rate * (5 if is_stream else 1):
            fate.kind = self._random.choice(("lost", "unanswered", "broken", "half open"))
            fate.left = self._random.randint(1, LONGEST_STREAM if is_stream else LONGEST_START)
            self.befell[f"stream {fate.kind}" if is_stream else fate.kind] += 1

    async def _answer(self, fate: _Fate, data: bytes) -> bytes | None:
        """Return what of a piece of an answer comes through; None: the connection ends."""
        if not fate.kind:
            return data
        if fate.kind == "unanswered":
            return None
        size = 1 if fate.is_stream else len(data)
        if fate.left > 0:
            part = data if fate.is_stream else data[: fate.left]
            fate.left -= size
            return part
        if fate.kind == "half open":
            await asyncio.sleep(self._random.uniform(0.1, LONGEST_HANG))
        return None


async def _pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(_CHUNK):
        yield data


async def _carry(
    pieces: AsyncIterator[bytes], writer: asyncio.StreamWriter, through: Callable[[bytes], Awaitable[bytes | None]]
) -> None:
    with suppress(ConnectionError):
        async for data in pieces:
            passed = await through(data)
            if passed is None or writer.is_closing():
                return
            writer.write(passed)
            await writer.drain()
