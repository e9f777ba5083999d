"""Who is let in: people by the mode that the configuration names, and machines by tokens of their own."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from fastmcp.server.auth import AccessToken, AuthProvider, MultiAuth, TokenVerificationError
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from opencode_gateway.configuration import PasswordSignIn
from opencode_gateway.errors import GatewayError
from opencode_gateway.machine_tokens import PREFIX, MachineTokens
from opencode_gateway.oauth.provider import Provider
from opencode_gateway.oauth.requests import signing_key
from opencode_gateway.pages import routes as pages
from opencode_gateway.pages.account import AccountPages
from opencode_gateway.pages.browser_cookies import BrowserCookies
from opencode_gateway.pages.door import PageDoor
from opencode_gateway.pages.sessions import PageSessions
from opencode_gateway.pages.signatures import DecisionSignatures
from opencode_gateway.people.users import Users
from opencode_gateway.sign_in.passkeys import Passkeys
from opencode_gateway.sign_in.password import Logins

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send

    from opencode_gateway.audit import AuditEvent
    from opencode_gateway.configuration import Configuration
    from opencode_gateway.people.directory import Directory
    from opencode_gateway.refusals import Refusal
    from opencode_gateway.sign_in.provider import ProviderLogins
    from opencode_gateway.store import Store

log = logging.getLogger(__name__)


class PeopleAndMachines(MultiAuth):
    """Routes are those for people. A token's prefix says who verifies it, so that ids of clients stay as they are.

    Args:
        people: who log in.
        machines: tokens of machines.
        door: of our own pages, for the same people.
        signatures: of passkeys of the same people, over what they decide there.
        account: routes of the pages on which they add these passkeys.
        directory: has the same people.
    """

    def __init__(
        self,
        people: AuthProvider,
        machines: MachineTokens,
        door: PageDoor,
        signatures: DecisionSignatures,
        account: list[Route],
        *,
        directory: Directory,
    ) -> None:
        # Without names FastMCP imports every kind of provider to find some, which takes 4 MB.
        super().__init__(server=people, server_source_id="people", verifiers={"machines": machines})
        self.people = people
        self.door = door
        self.signatures = signatures
        self.account = account
        self.directory = directory
        self._machines = machines

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return what a token may do; None if nobody knows it."""
        return await (self._machines if token.startswith(PREFIX) else self.people).verify_token(token)

    def get_middleware(self) -> list[Middleware]:
        """Return what goes around all routes."""
        return [Middleware(_Unavailable), *super().get_middleware()]


class _Unavailable:
    """Answers 503 where nobody can say whether a token is good: with a 401 a client would throw it away."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except (TokenVerificationError, GatewayError) as error:
            log.error("a token could not be looked up: %s", error)  # noqa: TRY400 # its message says all
            text = "The gateway cannot look up tokens now: try again, and see its log"
            await PlainTextResponse(text, 503, {"Retry-After": "5"})(scope, receive, send)


class _WithPages(Provider):
    """The authorization server together with the pages on which people log in."""

    pages: tuple[Route, ...] = ()

    def get_routes(self, mcp_path: str | None = None) -> list[Route]:
        """Return both."""
        return [*super().get_routes(mcp_path), *self.pages]


def build_auth(
    configuration: Configuration,
    store: Store,
    on_event: Callable[[AuditEvent], None] = lambda event: None,
    on_refusal: Callable[[Refusal], None] = lambda refusal: None,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> PeopleAndMachines:
    """Return what FastMCP asks about each request, and who may come to our own pages.

    Args:
        configuration: names the way to log in.
        store: clients, sessions and tokens.
        on_event: hears of logins, of clients that are admitted, and of sessions that end.
        on_refusal: hears of clients that are refused.
        clock: seconds since the epoch.
        monotonic: seconds, for budgets of the pages.

    Raises:
        GatewayError: a file that it needs cannot be read, or is wrong; or an identity provider does not answer.
    """
    sign_in = configuration.sign_in
    if isinstance(sign_in, PasswordSignIn):
        users = Users(sign_in.users_file or configuration.data_dir / "users.json")
        provider = _WithPages(configuration, store, users, on_event=on_event, on_refusal=on_refusal, clock=clock)
        logins: Logins | ProviderLogins = Logins(users)
    else:
        # Imported for this way alone: a provider's signatures bring much with them.
        from opencode_gateway.sign_in.provider import provider_logins  # noqa: PLC0415

        logins = provider_logins(sign_in, configuration.data_dir, configuration.public_url, clock)
        provider = _WithPages(
            configuration,
            store,
            logins.people,
            renewing=logins,
            on_event=on_event,
            on_refusal=on_refusal,
            clock=clock,
        )
    key = signing_key(configuration.data_dir)
    browsers = BrowserCookies(key, https=configuration.public_url.startswith("https:"), clock=clock)
    people = logins.users if isinstance(logins, Logins) else logins.people
    sessions = PageSessions(store, people, logins.kind, browsers, on_event=on_event, clock=clock)
    door = PageDoor(sessions, browsers, provider.requests)
    passkeys = Passkeys(store, people, configuration.public_url, clock=clock)
    shown = pages.routes(
        provider,
        logins,
        browsers,
        sessions,
        key=key,
        public_url=configuration.public_url,
        window=provider.clients.window,
        on_event=on_event,
        monotonic=monotonic,
        passkeys=passkeys,
    )
    account = AccountPages(
        passkeys,
        door,
        sessions.begun_at,
        logs_in=isinstance(logins, Logins),
        wanted_for=configuration.passkey_for,
        on_event=on_event,
        clock=clock,
    )
    provider.pages = tuple(shown)
    signatures = DecisionSignatures(passkeys, configuration.passkey_for, on_event)
    machines = MachineTokens(store, configuration.resource)
    return PeopleAndMachines(provider, machines, door, signatures, account.routes(), directory=people)
