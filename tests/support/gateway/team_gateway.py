"""A gateway whose people log in at a (fake) identity provider, over TLS, in this process; a browser; a chat."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx2
import uvicorn
from fastmcp import FastMCP
from fastmcp.server.dependencies import get_access_token
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from opencode_gateway.authentication import PeopleAndMachines, build_auth
from opencode_gateway.configuration import MCP_PATH, Configuration
from opencode_gateway.door.guards import guarded
from opencode_gateway.oauth import enrolment
from opencode_gateway.sign_in import identities
from opencode_gateway.store import FILE_NAME, Store
from support.gateway.authorization import CALLBACK, Clock, answer_of, proof
from support.gateway.fake_identity_provider import CLIENT_ID, CLIENT_SECRET
from support.pages.doors import door_routes
from support.ports import free_port
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import pytest

    from opencode_gateway.audit import AuditEvent
    from support.gateway.fake_identity_provider import FakeIdentityProvider

USERS = {"ann@example.org": ["observe", "approve", "drive"], "bob@example.org": ["observe"]}
_START_SECONDS = 90.0


def settings(
    directory: Path, mode: str, provider: FakeIdentityProvider, monkeypatch: pytest.MonkeyPatch, **changed: Any
) -> Configuration:
    """Return what `gateway.json` says for a provider on loopback, where Google and GitHub are then, too."""
    monkeypatch.setattr(identities, "GOOGLE_ISSUER", provider.url)
    monkeypatch.setattr(identities, "GITHUB", provider.url)
    monkeypatch.setattr(identities, "GITHUB_API", provider.url)
    secret = directory / "client-secret"
    if not secret.exists():
        secret.touch(0o600)
        secret.write_text(f"{CLIENT_SECRET}\n")
    sign_in = {"mode": mode, "client_id": CLIENT_ID, "client_secret_file": secret, "users": USERS}
    if mode == "oidc":
        sign_in["issuer"] = provider.url
    rest = {"public_url": f"https://localhost:{free_port()}", "data_dir": directory}
    return Configuration.model_validate(rest | changed | {"sign_in": sign_in | changed.get("sign_in", {})})


Make = Callable[..., "TeamGateway"]
"""Takes the mode and what is changed of `settings`."""


class TeamGateway:
    """The gateway, without servers behind it but one tool that says who calls; a context manager.

    Made again with the same configuration it is a restart.
    """

    def __init__(self, configuration: Configuration, certificate: Path, key: Path) -> None:
        self.configuration = configuration
        self.url = configuration.public_url
        self.store = Store(configuration.data_dir / FILE_NAME)
        self.events: list[AuditEvent] = []
        self.clock = Clock()
        auth = build_auth(configuration, self.store, self.events.append, clock=self.clock, monotonic=self.clock)
        assert isinstance(auth, PeopleAndMachines)
        self.auth: Any = auth
        server: FastMCP[None] = FastMCP("team", auth=self.auth)

        @server.tool
        def whoami() -> dict[str, Any]:
            token = get_access_token()
            assert token is not None
            claims = token.claims
            assert claims is not None
            return {"subject": token.subject, "scopes": token.scopes, "client_id": token.client_id, **claims}

        app = server.http_app(MCP_PATH, stateless_http=True, host_origin_protection=False)
        app.router.routes.extend(door_routes(self.auth.door))
        self._app = guarded(app, self.url)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app,
                host="127.0.0.1",
                port=int(urlsplit(self.url).port or 0),
                log_level="error",
                ssl_certfile=certificate,
                ssl_keyfile=key,
            )
        )
        self.trust = ssl.create_default_context(cafile=certificate)
        self.http = httpx2.AsyncClient(verify=self.trust, base_url=self.url)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._server.serve())
        await eventually_async(lambda: self._server.started, "the gateway listens", within=_START_SECONDS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()
        self._server.should_exit = True
        await self._task
        self.store.close()

    def open_window(self) -> None:
        enrolment.open_window(self.store, minutes=10, now=self.clock())

    async def register(self, **metadata: Any) -> httpx2.Response:
        return await self.http.post("/register", json={"redirect_uris": [CALLBACK], "client_name": "Chat"} | metadata)

    async def registered(self) -> str:
        """Return the id of a new client; the window is over again."""
        self.open_window()
        answer = await self.register()
        assert answer.status_code == 201, answer.text
        enrolment.open_window(self.store, minutes=1, now=self.clock() - 3600)
        return str(answer.json()["client_id"])

    def asking(self, client_id: str, challenge: str = "x" * 43, **changed: str) -> str:
        """Return the address to which a client sends its person."""
        asked = {
            "client_id": client_id,
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "state": "st&te",
            "resource": self.configuration.resource,
        }
        return str(httpx2.URL(f"{self.url}/authorize", params=asked | changed))

    def elsewhere(self, address: str) -> httpx2.AsyncClient:
        """Return a client whose requests come from that address; a context manager."""
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self._app, client=(address, 1)),
            base_url=self.url,
            headers={"Accept": "text/html"},
        )

    def browser(self) -> httpx2.AsyncClient:
        """Return a browser with nothing in it, that goes where it is told alone; a context manager."""
        return httpx2.AsyncClient(verify=self.trust, headers={"Accept": "text/html"})

    async def visit(
        self,
        url: str,
        *,
        answer: str | None = "allow",
        browser: httpx2.AsyncClient | None = None,
        until: str = CALLBACK,
    ) -> httpx2.Response:
        """Go there as a person does, log in, agree on the consent page, and return what one sees in the end.

        Args:
            answer: the button that is pressed on the consent page; None stays there.
            browser: with what it holds; a new one otherwise.
            until: whoever is sent to an address that begins so does not go there.
        """
        if browser is None:
            async with self.browser() as new:
                return await self.visit(url, answer=answer, browser=new, until=until)
        shown = await browser.get(url)
        while True:
            location = shown.headers.get("location")
            if location is not None:
                if location.startswith(until):
                    return shown
                shown = await browser.get(shown.url.join(location))
            elif answer is not None and 'action="' in shown.text and shown.status_code == 200:
                assert "form-action" not in shown.headers["content-security-policy"]
                shown = await self.send(browser, form_of(shown) | {"decision": answer})
            else:
                return shown

    async def send(self, browser: httpx2.AsyncClient, fields: dict[str, str]) -> httpx2.Response:
        """Send a consent page's form."""
        return await browser.post(f"{self.url}/consent", data=fields, headers={"Origin": self.url})

    async def code(self, client_id: str, challenge: str, **changed: str) -> str:
        """Return a code for a client whose person has said yes."""
        sent = await self.visit(self.asking(client_id, challenge, **changed))
        assert sent.status_code == 303, sent.text
        answer = answer_of(sent.headers["location"])
        assert (answer["state"], answer["iss"]) == ("st&te", self.url)
        return answer["code"]

    async def log_in(self, client_id: str | None = None, **changed: str) -> tuple[str, dict[str, Any]]:
        """Go the whole way; return the client's id and its tokens."""
        client_id = client_id or await self.registered()
        pkce = proof()
        code = await self.code(client_id, pkce.challenge, **changed)
        given = await self.exchange(client_id, code, pkce.verifier)
        assert given.status_code == 200, given.text
        tokens: dict[str, Any] = given.json()
        return client_id, tokens

    async def exchange(self, client_id: str, code: str, verifier: str) -> httpx2.Response:
        form = {"grant_type": "authorization_code", "client_id": client_id, "code": code, "code_verifier": verifier}
        return await self.http.post("/token", data=form | {"redirect_uri": CALLBACK})

    async def refresh(self, client_id: str, refresh_token: str) -> httpx2.Response:
        form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": refresh_token}
        return await self.http.post("/token", data=form)

    async def status(self, access_token: str) -> int:
        """Return how a request with this token is answered; 200 is good."""
        answer = await self.http.post(
            MCP_PATH,
            headers={"Authorization": f"Bearer {access_token}", "Accept": "application/json, text/event-stream"},
            json={"jsonrpc": "2.0", "id": 1, "method": "ping"},
        )
        return answer.status_code

    async def chat(self, scope: str | None = None) -> Mapping[str, Any]:
        """Connect with the SDK's own OAuth client, which finds all out by itself; return what `whoami` says."""
        kept = _Kept()
        came_back: list[httpx2.Response] = []

        async def send_away(url: str) -> None:
            came_back.append(await self.visit(url))

        async def come_back() -> AuthorizationCodeResult:
            assert came_back[0].status_code == 303, came_back[0].text
            return AuthorizationCodeResult.model_validate(answer_of(came_back[0].headers["location"]))

        metadata = OAuthClientMetadata(redirect_uris=[AnyUrl(CALLBACK)], client_name="Chat", scope=scope)
        flow = OAuthClientProvider(f"{self.url}{MCP_PATH}", metadata, kept, send_away, come_back)
        async with (
            httpx2.AsyncClient(auth=flow, verify=self.trust) as http,
            Client(streamable_http_client(f"{self.url}{MCP_PATH}", http_client=http), mode="legacy") as client,
        ):
            told: dict[str, Any] | None = (await client.call_tool("whoami", {})).structured_content
            assert told is not None
            return told


def form_of(page: httpx2.Response) -> dict[str, str]:
    """Return the fields of a consent page, all of them ticked."""
    return dict(re.findall(r'<input type="\w+" (?:id="[^"]*" )?name="([\w-]+)" value="([^"]*)"', page.text))


class _Kept:
    """What a chat client keeps."""

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
