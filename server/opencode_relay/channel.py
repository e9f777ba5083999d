"""Lines over the two descriptors of a session, bounded in both directions."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from opencode_relay.protocol import LINE_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK: Final = 8 * 1024
_DROPPED_MAX: Final = 64 * 1024
"""Bytes of one line after which its sender is no launcher."""


class EndlessLine(Exception):
    """A line of more than 64 KiB; it was not kept."""


class Channel:
    """One session's standard input and output. Owns both descriptors."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._rest = bytearray()
        self._dropped = 0
        self._is_writing = False
        self._loop = asyncio.get_running_loop()
        os.set_blocking(incoming, False)
        os.set_blocking(outgoing, False)

    async def read_line(self) -> bytes | None:
        """Return the next line without its newline, None at the end. One that is no message by its length is empty.

        Raises:
            EndlessLine: see there.
            OSError: the descriptor is of no kind that can be waited for.
        """
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if newline:
                self._rest = rest
                too_long = self._dropped or len(line) > LINE_MAX
                self._dropped = 0
                return b"" if too_long else bytes(line)
            if len(line) > LINE_MAX or self._dropped:
                self._dropped += len(line)
                self._rest.clear()
            if self._dropped > _DROPPED_MAX:
                raise EndlessLine
            data = await self._read()
            if not data:
                return None
            self._rest += data

    async def write(self, data: bytes) -> None:
        """Write all of `data`, however long the other side takes. Raises `OSError` if it is gone."""
        self._is_writing = True
        try:
            while data:
                try:
                    data = data[os.write(self._outgoing, data) :]
                except BlockingIOError:
                    await self._ready(self._loop.add_writer, self._loop.remove_writer, self._outgoing)
        finally:
            self._is_writing = False

    def offer(self, line: bytes) -> None:
        """Write a short line, if there is room for it now and it would not come in between another one."""
        if not self._is_writing:
            with suppress(OSError):  # whoever reads or has something to say meets it as well
                os.write(self._outgoing, line)

    def close(self) -> None:
        """Close both. Nobody may be waiting."""
        os.close(self._incoming)
        os.close(self._outgoing)

    async def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._incoming, _CHUNK)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader, self._incoming)
            except ConnectionResetError:
                return b""

    async def _ready(self, add: Callable[..., object], remove: Callable[[int], object], descriptor: int) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        add(descriptor, _resolve, ready)
        try:
            await ready
        finally:
            remove(descriptor)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
