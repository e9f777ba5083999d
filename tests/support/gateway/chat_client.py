"""The SDK's OAuth client, and the gateway's sign-in over TLS in this process."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import uvicorn
from fastmcp import FastMCP
from fastmcp.server.dependencies import get_access_token
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken, TokenEndpointAuthMethod
from pydantic import AnyUrl

from opencode_gateway.authentication import build_auth
from opencode_gateway.configuration import MCP_PATH, Configuration
from opencode_gateway.door.guards import guarded
from support.gateway.authorization import CALLBACK
from support.gateway.certificates import make_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from opencode_gateway.store import Store
    from support.gateway.person import Person


class Memory:
    """What the SDK's client keeps, in memory: `mcp.client.auth.TokenStorage`."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class SignIn:
    """The gateway's sign-in, for one tool that says who calls it."""

    def __init__(self, url: str, certificate: Path) -> None:
        self.url = url
        self.certificate = certificate
        self.trust = ssl.create_default_context(cafile=certificate)

    def oauth(
        self, memory: Memory, person: Person, *, method: TokenEndpointAuthMethod | None = None, **settings: Any
    ) -> OAuthClientProvider:
        """`method`: what the client asks to prove itself with; None leaves it to the server."""
        metadata = OAuthClientMetadata(
            client_name="SDK", redirect_uris=[AnyUrl(CALLBACK)], token_endpoint_auth_method=method
        )
        return OAuthClientProvider(
            f"{self.url}{MCP_PATH}",
            metadata,
            memory,
            redirect_handler=person.visit,
            callback_handler=person.came_back,
            **settings,
        )

    async def who(self, auth: httpx2.Auth | None, **headers: str) -> dict[str, Any]:
        """Connect and call the tool; return what it says."""
        async with (
            httpx2.AsyncClient(auth=auth, headers=headers, verify=self.trust, trust_env=False, timeout=30.0) as http,
            Client(streamable_http_client(f"{self.url}{MCP_PATH}", http_client=http)) as client,
        ):
            result = await client.call_tool("who", {})
            said = result.structured_content
            assert isinstance(said, dict)
            return said


@asynccontextmanager
async def signing_in(directory: Path, store: Store, **settings: Any) -> AsyncIterator[SignIn]:
    """Serve over TLS. The users are those of `users.json` in `directory`."""
    certificate, key = make_certificate(directory, "localhost")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = f"https://localhost:{listener.getsockname()[1]}"
        configuration = Configuration.model_validate({"public_url": here, "data_dir": directory, **settings})
        server: FastMCP[None] = FastMCP("sign-in", auth=build_auth(configuration, store))

        @server.tool
        def who() -> dict[str, Any]:
            token = get_access_token()
            assert token is not None
            return {"subject": token.subject, "scopes": token.scopes, **token.claims}

        app = server.http_app(MCP_PATH, stateless_http=True, host_origin_protection=False)
        service = uvicorn.Server(
            uvicorn.Config(
                guarded(app, configuration.public_url),
                log_config=None,
                ws="none",
                ssl_certfile=certificate,
                ssl_keyfile=str(key),
            )
        )
        serving = asyncio.create_task(service.serve(sockets=[listener]))
        try:
            yield SignIn(here, certificate)
        finally:
            service.should_exit = True
            await serving
