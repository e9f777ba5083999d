"""A chat client that knows servers on standard input and output alone, and has a bridge for others.

through_stdio.py COMMAND ARGUMENT...

It needs `mcp` 2.x, and connects once: the bridge lives as long as it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from lines import converse, show_progress
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client


async def main(command: str, *arguments: str) -> None:
    bridge = StdioServerParameters(command=command, args=list(arguments), env=dict(os.environ))
    async with Client(stdio_client(bridge), mode="legacy") as client:

        async def tools() -> list[str]:
            return [tool.name for tool in (await client.list_tools()).tools]

        async def call(tool: str, arguments: dict[str, Any]) -> str:
            result = await client.call_tool(tool, arguments, progress_callback=show_progress)
            return str(result.content[0].text)

        await converse(tools=tools, call=call)


asyncio.run(main(*sys.argv[1:]))
