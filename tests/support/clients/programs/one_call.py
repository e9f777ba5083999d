"""Calls one tool with the Python SDK, `mcp` 1.x, and prints a JSON line for each thing that comes.

one_call.py URL TOKEN TOOL ARGUMENTS

All settings are the SDK's own.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client


def say(**told: object) -> None:
    print(json.dumps(told), flush=True)


async def on_progress(_progress: float, _total: float | None, message: str | None) -> None:
    say(progress=message)


async def main(url: str, token: str, tool: str, given: str) -> None:
    async with (
        httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=httpx.Timeout(30, read=300)) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        result = await session.call_tool(tool, json.loads(given), progress_callback=on_progress)
        say(answer=result.model_dump(mode="json", by_alias=True))


asyncio.run(main(*sys.argv[1:]))
