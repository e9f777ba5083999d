"""A slow line: a TCP proxy whose answers all go through one queue, as all connections of a tunnel do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = 4_096


class SlowLine:
    """Forwards connections on a free loopback port to `target_port`; an async context manager.

    Answers come at `pace` bytes a second, of all connections together, in the order in which they were sent; up to
    `queue` bytes of them wait in between, as they do in the buffers of a real line.
    """

    def __init__(self, target_port: int, pace: float, *, queue: int) -> None:
        self.port = 0
        self.carried = 0
        """Bytes of answers that came through."""
        self._target_port = target_port
        self._pace = pace
        self._queue: asyncio.Queue[tuple[asyncio.StreamWriter, bytes]] = asyncio.Queue(queue // _CHUNK)
        self._server: asyncio.Server | None = None
        self._pump: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._pump = asyncio.create_task(self._carry())
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        assert self._pump is not None
        self._server.close()
        tasks = [self._pump, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._forward(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        requests = asyncio.create_task(self._requests(reader, far_writer))
        try:
            while data := await far_reader.read(_CHUNK):
                await self._queue.put((writer, data))
        except ConnectionError:
            pass
        finally:
            requests.cancel()
            writer.close()
            far_writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()
        # Whoever asked is gone, and hears no answer.
        writer.close()

    async def _carry(self) -> None:
        while True:
            writer, data = await self._queue.get()
            await asyncio.sleep(len(data) / self._pace)
            self.carried += len(data)
            with suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
