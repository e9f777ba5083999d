"""A chat client on FastMCP, 3.x or 4.x.

fastmcp_client.py URL NAME
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from fastmcp import Client
from fastmcp.client.auth import OAuth
from lines import converse, show_progress


async def main(url: str, name: str) -> None:
    oauth = OAuth(url, client_name=name)

    async def tools() -> list[str]:
        async with Client(url, auth=oauth) as client:
            return [tool.name for tool in await client.list_tools()]

    async def call(tool: str, arguments: dict[str, Any]) -> str:
        async with Client(url, auth=oauth) as client:
            result = await client.call_tool(tool, arguments, progress_handler=show_progress)
            return str(result.content[0].text)

    async def tomorrow() -> None:
        oauth.context.token_expiry_time = 1.0

    await converse(tools=tools, call=call, tomorrow=tomorrow)


asyncio.run(main(*sys.argv[1:]))
