"""One call by a real client of an SDK, in a process of its own."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from support.clients.installed import PROGRAMS, python1, typescript_sdk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.chat.mcp_client import Era

Sdk = Literal["python1", "typescript1", "typescript2"]


class RunningCall:
    """A call that somebody waits for."""

    def __init__(self, output: asyncio.StreamReader) -> None:
        self._output = output

    async def next(self) -> dict[str, Any]:
        """Return what comes next: `progress` and its message, `answer` and the result, or `error` and its text."""
        line = await self._output.readline()
        assert line, "the client ended without an answer"
        told: dict[str, Any] = json.loads(line)
        return told


@asynccontextmanager
async def one_call(
    sdk: Sdk, era: Era, url: str, token: str, tool: str, **arguments: object
) -> AsyncIterator[RunningCall]:
    """Have that SDK call `tool`. Only `typescript2` speaks the era of 2026."""
    command = await asyncio.to_thread(_command, sdk, era)
    process = await asyncio.create_subprocess_exec(
        *command, url, token, tool, json.dumps(arguments), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield RunningCall(process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _command(sdk: Sdk, era: Era) -> list[str]:
    if sdk == "python1":
        return [str(python1()), str(PROGRAMS / "one_call.py")]
    generation = int(sdk[-1])
    node, modules = typescript_sdk(generation)
    return [str(node), str(PROGRAMS / "one_call.mjs"), str(modules), str(generation), era]
