"""The gateway as people reach it: the product's own command with sign-in by password, and Caddy's TLS in front."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from opencode_gateway.capabilities import CAPABILITIES
from support.chat.mcp_client import SERVER_COMMAND
from support.gateway.authorization import CHEAP_HASH, AuthorizationServer, proof
from support.gateway.caddy import Caddy
from support.gateway.service import Gateway

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Mapping
    from types import TracebackType

GATEWAY_COMMAND = Path(sys.executable).parent / "opencode-gateway"


class PublicGateway(Gateway):
    """A gateway with the real server behind it, which reads `registry_dir`; a context manager.

    Args:
        directory: for all that it keeps.
        registry_dir: of the real server.
        entry: of `servers.json`, for a server in place of the real one.
        env: what its environment has besides.
        settings: of `gateway.json`.
    """

    def __init__(
        self,
        directory: Path,
        registry_dir: Path,
        *,
        entry: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.caddy = Caddy(directory / "caddy")
        self._data_dir = directory / "data"
        self._data_dir.mkdir(mode=0o700)
        entry = entry or {"command": str(SERVER_COMMAND), "env": {"RELAY_REGISTRY_DIR": str(registry_dir)}}
        servers = {"mcpServers": {"opencode": entry}}
        super().__init__(directory, servers, env=env, public_url=self.caddy.url, behind_proxy=True, **settings)
        self._command = [str(GATEWAY_COMMAND), "--config", str(self.config), "serve"]

    def __enter__(self) -> Self:
        self.start()
        try:
            self.caddy.start(self.port)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.caddy.stop()
        finally:
            self.stop()

    @property
    def front_url(self) -> str:
        """Caddy's address."""
        return self.caddy.url

    def trust(self) -> ssl.SSLContext:
        """Return a context that trusts Caddy's authority."""
        return self.caddy.trust()

    async def sign_in(self, people: Iterable[str]) -> list[str]:
        """Return an access token of each, who may do all: users are made, and each lets one chat client in."""
        server = AuthorizationServer(self._data_dir, public_url=self.front_url)
        try:
            client_id = await server.registered(client_name="Chat")
            return [await _sign_in(server, client_id, person) for person in people]
        finally:
            await server.close()


async def _sign_in(server: AuthorizationServer, client_id: str, person: str) -> str:
    if person not in server.users.load():
        server.users.add(person, CHEAP_HASH, CAPABILITIES)
    pkce = proof()
    asked = await server.authorize(client_id, pkce.challenge)
    code = server.consent(asked.headers["location"], person)["code"]
    answer = await server.exchange(client_id, code, pkce.verifier)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])
