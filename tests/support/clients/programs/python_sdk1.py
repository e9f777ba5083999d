"""A chat client on the Python SDK, `mcp` 1.x.

python_sdk1.py URL NAME
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
from lines import Returning, converse, open_browser, show_progress
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Memory:
    """What it keeps."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def oauth_of(url: str, name: str) -> OAuthClientProvider:
    returning = Returning()

    async def come_back() -> tuple[str, str | None]:
        brought = await returning.came()
        return brought["code"], brought.get("state")

    metadata = OAuthClientMetadata.model_validate({"client_name": name, "redirect_uris": [returning.url]})
    return OAuthClientProvider(url, metadata, Memory(), redirect_handler=open_browser, callback_handler=come_back)


async def main(url: str, name: str) -> None:
    oauth = oauth_of(url, name)

    @asynccontextmanager
    async def connected() -> AsyncIterator[ClientSession]:
        async with (
            httpx.AsyncClient(auth=oauth, timeout=60.0) as http,
            streamable_http_client(url, http_client=http) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            yield session

    async def tools() -> list[str]:
        async with connected() as session:
            return [tool.name for tool in (await session.list_tools()).tools]

    async def call(tool: str, arguments: dict[str, Any]) -> str:
        async with connected() as session:
            result = await session.call_tool(tool, arguments, progress_callback=show_progress)
            return str(result.content[0].text)  # type: ignore[union-attr] # the fixture's tools answer with text

    async def tomorrow() -> None:
        oauth.context.token_expiry_time = 1.0

    await converse(tools=tools, call=call, tomorrow=tomorrow)


asyncio.run(main(*sys.argv[1:]))
