"""The real server command with a client that makes many calls at once and outlives the server's death.

The SDK's client ends with its server; here the server is killed in the middle of calls and started anew.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from support.chat.mcp_client import SERVER_COMMAND

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_LONGEST_LINE = 64 * 2**20
"""Bytes: an answer is one line."""
_CALL_SECONDS = 120.0
"""A call that takes longer than this hangs."""


class ServerDied(Exception):
    """The server ended before it answered: nobody knows what became of the call."""


@dataclass(frozen=True)
class Answer:
    """What a tool call came to."""

    text: str
    structured: dict[str, Any]
    is_error: bool


class MortalServer:
    """A server on `registry_dir`, and its client; an async context manager."""

    def __init__(self, registry_dir: os.PathLike[str], env: Mapping[str, str]) -> None:
        self._env = {**os.environ, "RELAY_REGISTRY_DIR": str(registry_dir), **env}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._up = asyncio.Event()
        self.deaths = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it and greet it (protocol 2025-11-25)."""
        self._process = await asyncio.create_subprocess_exec(
            SERVER_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._env,
            limit=_LONGEST_LINE,
        )
        self._reading = asyncio.create_task(self._read(self._process))
        client = {"name": "mortal", "version": "1"}
        await self._request("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=client)
        await self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self._up.set()

    async def kill(self) -> None:
        """Kill it with all calls that run (SIGKILL), and return once it is gone."""
        assert self._process is not None
        assert self._reading is not None
        self._up.clear()
        self.deaths += 1
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def call(self, tool: str, **arguments: object) -> Answer:
        """Call a tool once the server is up.

        Raises:
            ServerDied: it ended before it answered.
        """
        await self._up.wait()
        told = await self._request("tools/call", name=tool, arguments=arguments)
        result = told.get("result")
        assert result is not None, told
        text = "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
        return Answer(text, result.get("structuredContent") or {}, bool(result.get("isError")))

    async def _request(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[number] = answer
        try:
            await self._write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
            async with asyncio.timeout(_CALL_SECONDS):
                return await answer
        finally:
            self._open.pop(number, None)

    async def _write(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError):
            raise ServerDied from None

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            message: dict[str, Any] = json.loads(line)
            answer = self._open.get(message.get("id", 0))
            if answer is not None and not answer.done():
                answer.set_result(message)
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(ServerDied())
