"""JSON-RPC to the server's stdin and stdout, with nothing of an SDK in between: to time the server alone."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from support.chat.mcp_client import SERVER_COMMAND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_LONGEST_LINE = 64 * 2**20
"""Bytes: an answer is one line."""


class RawServer:
    """A running server that has been greeted (protocol 2025-11-25)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count(1)

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    async def greet(self) -> None:
        """Do the handshake."""
        client = {"name": "raw", "version": "1"}
        await self.request("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=client)
        await self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def call(self, tool: str, **arguments: object) -> bytes:
        """Call a tool and return its whole answer, unparsed: parsing is the client's time."""
        return await self.request("tools/call", name=tool, arguments=arguments)

    async def request(self, method: str, **params: object) -> bytes:
        """Send a request and return the next line. There must be no notifications in between."""
        await self._write({"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params})
        assert self._process.stdout is not None
        return await self._process.stdout.readline()

    async def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()

    async def close(self) -> None:
        """Close its stdin, which ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(60):
            await self._process.wait()


@asynccontextmanager
async def raw_server(registry_dir: Path, *, inside: tuple[str, ...] = ()) -> AsyncIterator[RawServer]:
    """Start a server on `registry_dir`, in the network namespace that `inside` is the prefix of."""
    process = await asyncio.create_subprocess_exec(
        *inside,
        SERVER_COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "RELAY_REGISTRY_DIR": str(registry_dir)},
        limit=_LONGEST_LINE,
    )
    server = RawServer(process)
    try:
        await server.greet()
        yield server
    finally:
        await server.close()
