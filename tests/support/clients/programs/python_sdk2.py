"""A chat client on the Python SDK, `mcp` 2.x.

python_sdk2.py URL NAME
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
from lines import Returning, converse, open_browser, show_progress
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

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

    async def come_back() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**await returning.came())

    metadata = OAuthClientMetadata.model_validate({"client_name": name, "redirect_uris": [returning.url]})
    return OAuthClientProvider(url, metadata, Memory(), redirect_handler=open_browser, callback_handler=come_back)


async def main(url: str, name: str) -> None:
    oauth = oauth_of(url, name)

    @asynccontextmanager
    async def connected() -> AsyncIterator[Client]:
        async with (
            httpx2.AsyncClient(auth=oauth, timeout=60.0) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            yield client

    async def tools() -> list[str]:
        async with connected() as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    async def call(tool: str, arguments: dict[str, Any]) -> str:
        async with connected() as client:
            result = await client.call_tool(tool, arguments, progress_callback=show_progress)
            return str(result.content[0].text)

    async def tomorrow() -> None:
        oauth.context.token_expiry_time = 1.0

    await converse(tools=tools, call=call, tomorrow=tomorrow)


asyncio.run(main(*sys.argv[1:]))
