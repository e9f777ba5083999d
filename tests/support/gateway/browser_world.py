"""What a browser meets on the way to a login: a relay, a chat service on another site, and an attacker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from argon2.profiles import CHEAPEST
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Route

from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.configuration import MCP_PATH, Configuration
from opencode_gateway.door.guards import guarded
from opencode_gateway.oauth.provider import Provider
from opencode_gateway.oauth.requests import Pending, signing_key
from opencode_gateway.pages import routes as pages
from opencode_gateway.pages.browser_cookies import BrowserCookies
from opencode_gateway.pages.sessions import PageSessions
from opencode_gateway.people.users import Users
from opencode_gateway.sign_in.password import Logins
from opencode_gateway.sign_in.passwords import Passwords
from opencode_gateway.store import FILE_NAME, Store
from support.gateway.authorization import proof
from support.gateway.browser import HttpsSite, certificate

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from starlette.requests import Request

PASSWORD = "correct horse battery"
RELAY, CHAT, APP, EVIL = "relay.example.org", "chat.example.net", "app.example.com", "evil.example.edu"


class World:
    """A relay, a chat service whose callback leads on to another site of its own, and an attacker's site."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        files = certificate(directory, RELAY, CHAT, APP, EVIL)
        self.relay, self.chat, self.app, self.evil = (HttpsSite(name, files) for name in (RELAY, CHAT, APP, EVIL))
        self.callback = f"{self.chat.url}/callback"
        self.configuration = Configuration.model_validate(
            {
                "public_url": self.relay.url,
                "data_dir": directory,
                "clients": {"redirect_uris": [self.callback]},
            }
        )
        self.store = Store(directory / FILE_NAME)
        stack.callback(self.store.close)
        self.users = Users(directory / "users.json")
        self.users.add("ann", Passwords(CHEAPEST).hash(PASSWORD), CAPABILITIES)
        self.provider = Provider(self.configuration, self.store, self.users)
        self.key = signing_key(directory)
        self.evil_page = ""
        self.cookies: list[set[str]] = []
        """That each request to `/authorize` brought."""
        app = guarded(self._gateway, self.relay.url)

        async def door(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/authorize":
                self.cookies.append(set(HTTPConnection(scope).cookies))
            await app(scope, receive, send)

        self.relay.app = door
        self.chat.app = Starlette(routes=[Route("/", self._chat), Route("/callback", self._callback)])
        self.app.app = Starlette(routes=[Route("/done", self._done)])
        self.evil.app = Starlette(routes=[Route("/", self._evil)])
        self.restart()
        self.client_id = "https://chat.example.net/client.json"
        for site in (self.relay, self.chat, self.app, self.evil):
            stack.enter_context(site)

    def restart(self) -> None:
        """Forget who tried to log in."""
        browsers = BrowserCookies(self.key, https=True)
        shown = pages.routes(
            self.provider,
            Logins(self.users, passwords=Passwords(CHEAPEST)),
            browsers,
            PageSessions(self.store, self.users, "password", browsers),
            key=self.key,
            public_url=self.relay.url,
            window=self.provider.clients.window,
        )
        self._routes = Starlette(routes=[*shown, *self.provider.get_routes(MCP_PATH)])

    async def _gateway(self, scope: Any, receive: Any, send: Any) -> None:
        await self._routes(scope, receive, send)

    def login_url(self, client_name: str = "Claude", *, document: bool = True) -> str:
        """Return what `/authorize` answers to a request that is in order."""
        pending = Pending(
            client_id=self.client_id,
            client_name=client_name,
            document=document,
            redirect_uri=self.callback,
            state="the state",
            challenge=proof().challenge,
            capabilities=CAPABILITIES,
            resource=self.configuration.resource,
        )
        return f"{self.relay.url}/login?{urlencode({'request': self.provider.requests.sign(pending)})}"

    async def _chat(self, request: Request) -> HTMLResponse:
        # Opens the relay in this tab, and in a popup that tells it how it went.
        address = request.query_params["to"].replace("&", "&amp;")
        script = "window.addEventListener('message', e => document.title = e.data)"
        return HTMLResponse(
            f'<a id="connect" href="{address}">Connect</a>'
            f'<a id="popup" href="{address}" target="_blank" rel="opener">Connect</a>'
            f"<script>{script}</script>"
        )

    async def _callback(self, request: Request) -> HTMLResponse | RedirectResponse:
        if "tell" in request.cookies:
            return HTMLResponse(f"<script>opener.postMessage('told', '{self.chat.url}')</script>")
        return RedirectResponse(f"{self.app.url}/done?{request.url.query}", 302)

    async def _done(self, request: Request) -> HTMLResponse:
        return HTMLResponse("<h1>Connected</h1>")

    async def _evil(self, request: Request) -> HTMLResponse:
        return HTMLResponse(self.evil_page)
