"""One call with a real client of the TypeScript SDK, in a process of its own."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from support.npm import install_from_npm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.mcp_client import Era

Sdk = Literal["1", "2"]
_PACKAGES = {"1": ("@modelcontextprotocol/sdk", "1.32.2"), "2": ("@modelcontextprotocol/client", "2.4.0")}
_PROGRAM = Path(__file__).with_suffix(".mjs")


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
async def typescript_call(
    sdk: Sdk, era: Era, url: str, token: str, tool: str, **arguments: object
) -> AsyncIterator[RunningCall]:
    """Have the SDK of that version call `tool`. Only version 2 speaks the era of 2026."""
    package, version = _PACKAGES[sdk]
    modules = await asyncio.to_thread(install_from_npm, package, version, name=f"typescript-sdk-{sdk}")
    given = [str(_PROGRAM), str(modules), sdk, era, url, token, tool, json.dumps(arguments)]
    process = await asyncio.create_subprocess_exec("node", *given, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield RunningCall(process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
