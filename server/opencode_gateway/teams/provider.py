"""The authorization server for people of an identity provider: FastMCP's proxy, for those in the list alone.

The proxy asks for consent, sends people to the provider, exchanges the provider's code, and hands out tokens of its
own that stand for the session there. What is put in its place here: clients and endpoints, which are those of the
password mode; who may come in, established before a client gets a code. What becomes of tokens is in `tokens`.
"""

from __future__ import annotations

import hmac
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from mcp.server.auth.provider import AuthorizeError
from pydantic import AnyHttpUrl, AnyUrl, ConfigDict, TypeAdapter, ValidationError
from starlette.routing import Route

from opencode_gateway.audit import Event
from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.oauth import handlers
from opencode_gateway.oauth.clients import AdmittedClient, Clients, NotAdmitted
from opencode_gateway.oauth.documents import Documents
from opencode_gateway.oauth.grants import ACCESS_SECONDS, REFRESH_SECONDS
from opencode_gateway.oauth.provider import Provider
from opencode_gateway.oauth.redirects import Rules
from opencode_gateway.oauth.registrations import shown_id
from opencode_gateway.oauth.requests import Pending, signing_key
from opencode_gateway.pages.forms import foreign, start_again
from opencode_gateway.pages.rendering import STYLE_PATH, problem_page, style
from opencode_gateway.sign_in.throttle import Buckets, Budget
from opencode_gateway.teams import sessions
from opencode_gateway.teams.consent import consent_page, plain
from opencode_gateway.teams.tokens import TeamTokens
from opencode_gateway.teams.upstream import LOGIN, AskingClient, Login, ProviderFailed, ReportingClient, nonce

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastmcp.server.auth.oauth_proxy.models import OAuthTransaction
    from key_value.aio.protocols import AsyncKeyValue
    from mcp.server.auth.provider import AuthorizationParams
    from mcp.shared.auth import OAuthClientInformationFull
    from starlette.requests import Request
    from starlette.responses import Response

    from opencode_gateway.configuration import Configuration
    from opencode_gateway.store import Store
    from opencode_gateway.teams.people import People
    from opencode_gateway.teams.upstream import Identity

CALLBACK_PATH: Final = "/auth/callback"
"""What the owner registers at the provider, behind `public_url`."""
CONSENT_SECONDS: Final = 900
"""How long a login lasts that was agreed to, as FastMCP has it."""
_LINES: Final = Budget(30, 10)
"""Audit lines about people who have not logged in: whoever may ask for consent must not fill the log."""
RENEW_EARLY_SECONDS: Final = 30
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
# An issuer is compared as text: with the usual parser it would gain a slash at its end.
_ISSUER: Final = TypeAdapter(AnyHttpUrl, config=ConfigDict(url_preserve_empty_path=True))


class TeamSignIn(TeamTokens):
    """Authorization and tokens for the people in the list.

    Args:
        key: signs tokens.
        storage: of the proxy.
        documents: fetches client-id documents.
        on_event: hears of logins, of clients that registered, and of sessions that end.
        clock: seconds since the epoch, for clients and sessions; the proxy has the system's.
    """

    def __init__(
        self,
        configuration: Configuration,
        store: Store,
        identity: Identity,
        people: People,
        *,
        client_id: str,
        client_secret: str,
        key: bytes,
        storage: AsyncKeyValue,
        documents: Documents | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.configuration = configuration
        self.issuer = configuration.public_url
        self._rules = Rules(configuration.clients, store, clock)
        self.clients = Clients(
            store,
            self._rules,
            documents or Documents(),
            key=signing_key(configuration.data_dir),
            clock=clock,
            on_event=on_event,
        )
        self._lines = Buckets(_LINES, max_keys=1)
        super().__init__(
            store,
            identity,
            people,
            resource=configuration.resource,
            on_event=on_event,
            clock=clock,
            upstream_authorization_endpoint=identity.endpoints.authorization,
            upstream_token_endpoint=identity.endpoints.token,
            upstream_client_id=client_id,
            upstream_client_secret=client_secret,
            base_url=_ISSUER.validate_python(configuration.public_url),
            redirect_path=CALLBACK_PATH,
            # Looked at below, as they are when they are asked for; none would do if the proxy changed under us.
            allowed_client_redirect_uris=["https://redirects.invalid/"],
            valid_scopes=list(CAPABILITIES),
            forward_resource=False,
            extra_authorize_params=dict(identity.endpoints.parameters),
            client_storage=storage,
            jwt_signing_key=key,
            require_authorization_consent=True,
            fallback_refresh_token_expiry_seconds=REFRESH_SECONDS,
            fastmcp_access_token_expiry_seconds=ACCESS_SECONDS,
            token_expiry_threshold_seconds=RENEW_EARLY_SECONDS,
            # Documents are the clients' business, above.
            enable_cimd=False,
        )

    def get_routes(self, mcp_path: str | None = None) -> list[Route]:
        """Return the password mode's routes of an authorization server, and the two of the proxy."""
        self.set_mcp_path(mcp_path)
        return [
            *handlers.routes(cast("Provider", self)),  # it has all of that which they use
            Route(STYLE_PATH, style, methods=["GET"]),
            Route(
                "/consent", handlers.bounded(self._handle_consent, handlers.MAX_FORM_BYTES), methods=["GET", "POST"]
            ),
            Route(CALLBACK_PATH, self._handle_idp_callback, methods=["GET"]),
        ]

    # Clients.

    async def get_client(self, client_id: str) -> AdmittedClient | None:
        """Return a client that is known here; our own id at the provider, which the proxy would take, is none."""
        with suppress(NotAdmitted):
            return self.clients.known(client_id) or await self.clients.admit(client_id)
        return None

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        """Admit a client; see `Clients.register`."""
        self.clients.register(client_info)

    def is_ours(self, resource: str | None) -> bool:
        """Tell whether this names our resource; None does (RFC 8707 lets it be left out)."""
        return Provider.is_ours(cast("Provider", self), resource)

    def _validate_client_redirect_uri(self, redirect_uri: str) -> bool:
        allowed = self._rules.now()
        try:
            return allowed.allows(allowed.as_written(AnyUrl(redirect_uri)))
        except ValidationError:
            return False

    # A login.

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        """Return the address of the consent page for a request that is in order."""
        if not isinstance(client, AdmittedClient):
            raise AuthorizeError("unauthorized_client", "the client was not admitted")
        if not self.is_ours(params.resource):
            raise AuthorizeError("invalid_target", f"the only resource here is {self.resource}")
        if not _CHALLENGE.fullmatch(params.code_challenge):
            raise AuthorizeError("invalid_request", "code_challenge is not one of S256")
        asked = params.scopes or CAPABILITIES
        scopes = [capability for capability in CAPABILITIES if capability in asked]
        return await super().authorize(client, params.model_copy(update={"scopes": scopes, "resource": None}))

    def _build_upstream_authorize_url(self, txn_id: str, transaction: dict[str, Any]) -> str:
        # The client's scopes are ours; the provider is asked for an address, whatever they are.
        scopes = list(self._identity.endpoints.scopes)
        url = super()._build_upstream_authorize_url(txn_id, transaction | {"scopes": scopes})
        if self._identity.kind == "github":
            return url
        return f"{url}&nonce={nonce(transaction['proxy_code_verifier'])}"

    def _cookie_signing_key(self) -> bytes:
        # FastMCP signs with the secret at the provider, which anybody with a cookie could then guess at.
        return hmac.digest(self._jwt_signing_key, b"cookies", "sha256")

    def _prepare_scopes_for_upstream_refresh(self, scopes: list[str]) -> list[str]:
        return []

    def _create_upstream_oauth_client(self) -> AskingClient:
        assert self._upstream_client_secret is not None  # noqa: S101 # for the type: it is always given
        return ReportingClient(
            self._identity, self._people, self._upstream_client_id, self._upstream_client_secret.get_secret_value()
        )

    async def _handle_consent(self, request: Request) -> Any:
        """Show what a client asks for, or take the answer and send the person on."""
        if request.method != "POST":
            return await self._consent_page(request, await super()._handle_consent(request))
        # Sent by every current browser. A request without it has FastMCP's token and cookie to show, as any other.
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return foreign()
        form = await request.form()
        txn_id = str(form.get("txn_id", ""))
        transaction = await self._transaction_store.get(key=txn_id)
        asked = transaction.scopes if transaction else ()
        chosen = [capability for capability in asked if form.get(f"capability-{capability}")]
        allows = form.get("action") == "approve"
        if transaction and allows and not chosen:
            message = "Tick at least one thing that it may do, or do not allow it."
            return await self._consent_page(request, await self._show_consent_page(request), message)
        response = await super()._handle_consent(request)
        if transaction is None or "location" not in response.headers:
            return plain(response)
        if not allows:
            await self._transaction_store.delete(key=txn_id)
        else:
            # FastMCP has just stored it with what binds it to this browser.
            agreed = await self._transaction_store.get(key=txn_id)
            if agreed is None:
                return start_again("This step is over", "It took too long.", status=403)
            granted = agreed.model_copy(update={"scopes": chosen})
            await self._transaction_store.put(key=txn_id, value=granted, ttl=CONSENT_SECONDS)
        self._note(
            Event(
                event="consent",
                outcome="allowed" if allows else "denied",
                kind=self._identity.kind,
                client_id=transaction.client_id,
                client_name=(await self._pending(transaction)).client_name,
                address=request.client.host if request.client else None,
                details={"capabilities": chosen} if allows else {},
            )
        )
        return response

    def _note(self, event: Event) -> None:
        """Write a line about somebody who has not logged in, unless there were many just now."""
        if not self._lines.wait(None):
            self._lines.take(None)
            self._on_event(event)

    async def _consent_page(self, request: Request, given: Response, message: str | None = None) -> Response:
        transaction = await self._transaction_store.get(key=request.query_params.get("txn_id", ""))
        if transaction is None:
            return plain(given)
        pending = await self._pending(transaction)
        return consent_page(given, transaction, pending, provider=self._identity.name, message=message)

    async def _handle_idp_callback(self, request: Request) -> Any:
        """Answer who comes back from the provider: with a code for the client, or with a page that says why not."""
        transaction = await self._transaction_store.get(key=request.query_params.get("state", ""))
        if transaction is None:  # FastMCP would log what a stranger sent
            return start_again("This login cannot go on", "It took too long, or was not begun here.")
        login = Login()
        token = LOGIN.set(login)
        try:
            response = await super()._handle_idp_callback(request)
        finally:
            LOGIN.reset(token)
        if login.failure is None and login.stored is None:
            return plain(response)
        begun = login.stored is not None and await self._begin(transaction, login.stored)
        if not begun:
            # One more try needs one more consent.
            await self._transaction_store.delete(key=transaction.txn_id)
        (self._on_event if begun else self._note)(
            Event(
                event="login",
                outcome="ok" if begun else "refused",
                login=(login.stored or {}).get("person"),
                kind=self._identity.kind,
                client_id=transaction.client_id,
                address=request.client.host if request.client else None,
                details={} if begun else {"why": str(login.failure or "client revoked")},
            )
        )
        if isinstance(login.failure, ProviderFailed):
            return problem_page("Not connected", f"{login.failure}.", status=502)
        if login.failure is not None:
            return problem_page("You are not let in", f"{login.failure}.", status=403)
        if not begun:
            return problem_page(
                "Not connected", "This client is no longer registered here: connect it anew.", status=403
            )
        return response

    async def _begin(self, transaction: OAuthTransaction, stored: dict[str, Any]) -> bool:
        """Note whose session the code is going to begin; False if its client was revoked meanwhile."""
        pending = await self._pending(transaction)
        with self._store.transaction() as db:
            if not self.clients.granted(db, pending, stored["person"]):
                return False
            sessions.begin(
                db,
                stored["session"],
                login=stored["person"],
                client_id=pending.client_id,
                capabilities=pending.capabilities,
                resource=self.resource,
                now=self._clock(),
            )
        return True

    async def _pending(self, transaction: OAuthTransaction) -> Pending:
        """Return what a client asked for."""
        client_id = transaction.client_id
        client = await self.get_client(client_id)
        return Pending(
            client_id=client_id,
            # The window may have closed while the person logged in; they came in time.
            client_name=(client and client.client_name) or urlsplit(client_id).hostname or shown_id(client_id),
            document=client.document if client else client_id.startswith("https://"),
            redirect_uri=transaction.client_redirect_uri,
            challenge=transaction.code_challenge or "",
            capabilities=tuple(capability for capability in CAPABILITIES if capability in transaction.scopes),
            resource=self.resource,
        )
