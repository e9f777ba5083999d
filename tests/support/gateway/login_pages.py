"""The login and consent pages with a browser of cookies and forms alone, in this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import httpx
from argon2.profiles import CHEAPEST
from starlette.applications import Starlette

from opencode_gateway.configuration import MCP_PATH
from opencode_gateway.oauth.requests import signing_key
from opencode_gateway.pages import routes as pages
from opencode_gateway.pages.browser_cookies import BrowserCookies
from opencode_gateway.pages.door import PageDoor
from opencode_gateway.pages.sessions import PageSessions
from opencode_gateway.sign_in.password import Logins
from opencode_gateway.sign_in.passwords import Passwords
from opencode_gateway.sign_in.throttle import Throttle
from support.gateway.authorization import AuthorizationServer, proof
from support.pages.doors import door_routes

if TYPE_CHECKING:
    from opencode_gateway.audit import AuditEvent

PASSWORD = "correct horse battery"
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


class Form(HTMLParser):
    """What a browser would send of the page's form, and what is in the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.checkboxes: dict[str, bool] = {}
        self.buttons: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.labels: set[str | None] = set()
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        self.attributes |= found.keys()
        if tag == "input" and found.get("type") == "checkbox":
            self.checkboxes[str(found["name"])] = "checked" in found
        elif tag == "input":
            self.fields[str(found["name"])] = found.get("value") or ""
        if tag == "input" and found.get("type") != "hidden":
            self.ids.append(str(found["id"]))
        elif tag == "button":
            self.buttons.append(found)
        elif tag == "label":
            self.labels.add(found.get("for"))


@dataclass
class Site:
    """The pages and the authorization server that they belong to, and a browser's cookies."""

    server: AuthorizationServer
    http: httpx.AsyncClient
    events: list[AuditEvent]
    clients: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> bytes:
        return signing_key(self.server.configuration.data_dir)

    @property
    def browsers(self) -> BrowserCookies:
        return BrowserCookies(self.key, https=True, clock=self.server.clock)

    async def arrive(self, **client: Any) -> httpx.Response:
        """Come from a chat client to the login page."""
        name = str(client)
        if name not in self.clients:
            self.clients[name] = await self.server.registered(**client)
        client_id = self.clients[name]
        asked = await self.server.authorize(client_id, proof().challenge, scope="observe drive")
        return await self.http.get(asked.headers["location"])

    async def send(self, shown: httpx.Response, **changed: str | None) -> httpx.Response:
        """Send the form that is shown, with some fields changed, and left out where they are None."""
        form = Form(shown.text)
        fields: dict[str, str | None] = {**form.fields, **{name: "yes" for name, on in form.checkboxes.items() if on}}
        fields.update(changed)
        path = shown.request.url.path
        return await self.http.post(path, data={name: value for name, value in fields.items() if value is not None})

    async def log_in(self, **client: Any) -> httpx.Response:
        """Come to the consent page."""
        answer = await self.send(await self.arrive(**client), name="ann", password=PASSWORD)
        assert answer.status_code == 303, answer.text
        return await self.http.get(answer.headers["location"])

    async def nothing(self) -> httpx.Response:
        """Come from nowhere."""
        return await self.http.get("/login")

    def told(self) -> list[tuple[str, str, str | None]]:
        return [(event.event, event.outcome, event.login) for event in self.events]


def browser_of(
    server: AuthorizationServer, events: list[AuditEvent], address: str = "203.0.113.7"
) -> httpx.AsyncClient:
    """Return a new browser; all of a test share the throttle that lies in `server.app`."""
    transport = httpx.ASGITransport(server.app, client=(address, 1234))
    return httpx.AsyncClient(transport=transport, base_url=server.configuration.public_url)


def with_pages(server: AuthorizationServer, events: list[AuditEvent]) -> None:
    """Put the pages before the server's routes, with hashes that are quickly made and the test's clock."""
    server.users.set_password("ann", Passwords(CHEAPEST).hash(PASSWORD))
    key = signing_key(server.configuration.data_dir)
    browsers = BrowserCookies(key, https=server.configuration.public_url.startswith("https:"), clock=server.clock)
    sessions = PageSessions(
        server.store, server.users, "password", browsers, on_event=events.append, clock=server.clock
    )
    shown = pages.routes(
        server.provider,
        Logins(server.users, passwords=Passwords(CHEAPEST), throttle=Throttle(server.clock), clock=server.clock),
        browsers,
        sessions,
        key=key,
        public_url=server.configuration.public_url,
        window=server.provider.clients.window,
        on_event=events.append,
        monotonic=server.clock,
    )
    door = PageDoor(sessions, browsers, server.provider.requests)
    server.app = Starlette(routes=[*shown, *door_routes(door), *server.provider.get_routes(MCP_PATH)])
