"""A line that breaks on demand: a TCP proxy between the server and an instance, in place of a tunnel."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = 65_536


class BrokenLine:
    """Forwards connections on a free loopback port to `target_port`; an async context manager."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._lose: tuple[bytes, str] | None = None
        self._cut_with_it = False
        self.arrived: list[bytes] = []
        """What went through towards the instance, piece by piece: each request begins one."""
        self.lost = asyncio.Event()
        """Set when what `lose_request` or `lose_answer` waits for was lost."""

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    async def cut(self) -> None:
        """End all connections and refuse new ones, as a port does whose tunnel is gone."""
        self._end()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _end(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self._connections:
            connection.cancel()

    async def mend(self) -> None:
        """Accept connections (again), on the same port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def stall(self) -> None:
        """Keep all connections, accept new ones, and let no byte through, as a half-open line does."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let through what was held back, and all that comes."""
        self._flowing.set()

    def lose_request(self, path: str) -> None:
        """Break the connection on which the next request for `path` comes, before it arrives."""
        self._lose = path.encode(), "request"

    def lose_answer(self, path: str, *, and_line: bool = False) -> None:
        """Let the next request for `path` through, and break its connection when the answer comes.

        With `and_line` the whole line is cut with it.
        """
        self._lose = path.encode(), "answer"
        self._cut_with_it = and_line

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._forward(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer = None
        try:
            await self._flowing.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            doomed = asyncio.Event()
            ways = (
                asyncio.create_task(self._requests(reader, far_writer, doomed)),
                asyncio.create_task(self._answers(far_reader, writer, doomed)),
            )
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except ConnectionError:
            pass  # nobody there: the near side learns it from the end of its connection
        finally:
            for each in (writer, far_writer):
                if each is not None:
                    each.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                if self._lose is not None and self._lose[0] in data.partition(b"\r\n")[0]:
                    what, self._lose = self._lose[1], None
                    if what == "request":
                        self.lost.set()
                        return
                    doomed.set()
                self.arrived.append(data)
                writer.write(data)
                await writer.drain()

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                if doomed.is_set():
                    self.lost.set()
                    if self._cut_with_it:
                        self._end()
                    return
                writer.write(data)
                await writer.drain()
