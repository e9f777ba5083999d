"""The authorization server: what the SDK's handlers ask, answered from clients, grants and the directory of people.

The SDK parses requests, compares PKCE and redirect URIs, and answers in OAuth's forms. Here is decided who may: see
`clients`, `grants`, `people.directory` and `rechecks`. `handlers` holds what the SDK's handlers lack.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

from fastmcp.server.auth import AccessToken, OAuthProvider, TokenVerificationError
from fastmcp.server.auth.redirect_validation import build_client_redirect
from mcp.server.auth.provider import (
    AuthorizationCode,
    AuthorizationParams,
    AuthorizeError,
    RefreshToken,
    TokenError,
)
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl, AnyUrl, ConfigDict, TypeAdapter, ValidationError

from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.errors import CommandRefused, GatewayError
from opencode_gateway.oauth import grants as lifetimes
from opencode_gateway.oauth import handlers
from opencode_gateway.oauth.clients import AdmittedClient, OAuthClients
from opencode_gateway.oauth.documents import ClientDocuments
from opencode_gateway.oauth.grants import Grants, Pair
from opencode_gateway.oauth.rechecks import Rechecks
from opencode_gateway.oauth.redirects import RedirectRules, still_let_in
from opencode_gateway.oauth.requests import Pending, PendingRequests, signing_key
from opencode_gateway.pages.browser_cookies import BrowserCookies
from opencode_gateway.pages.visits import LOGIN_PATH
from opencode_gateway.sign_in.step import BY_PASSWORD, LoginEnded

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from starlette.routing import Route

    from opencode_gateway.audit import AuditEvent
    from opencode_gateway.configuration import Configuration
    from opencode_gateway.oauth.grants import Token
    from opencode_gateway.people.directory import Directory
    from opencode_gateway.refusals import Refusal
    from opencode_gateway.sign_in.step import Proof, Renewing
    from opencode_gateway.store import Store

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
# A URL is compared as text by clients: the usual parser would add a slash at the end of an origin.
_URL: Final = TypeAdapter(AnyHttpUrl, config=ConfigDict(url_preserve_empty_path=True))


class Provider(OAuthProvider):
    """Authorization and tokens for the people of one gateway.

    Args:
        directory: who may come in, and what each may do; asked at each use of a token.
        renewing: where people log in, if that is not here: asked again about sessions.
        documents: fetches client-id documents.
        on_event: hears of clients that registered and of sessions that end before their time.
        on_refusal: hears of clients that are refused.
        clock: seconds since the epoch.

    Raises:
        StoreError: the signing key cannot be read or made.
    """

    def __init__(
        self,
        configuration: Configuration,
        store: Store,
        directory: Directory,
        *,
        renewing: Renewing | None = None,
        documents: ClientDocuments | None = None,
        on_event: Callable[[AuditEvent], None] = lambda event: None,
        on_refusal: Callable[[Refusal], None] = lambda refusal: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(base_url=_URL.validate_python(configuration.public_url))
        self.configuration = configuration
        self.issuer = configuration.public_url
        self.resource = configuration.resource
        self._on_refusal = on_refusal
        key = signing_key(configuration.data_dir)
        self.requests = PendingRequests(key, clock=clock)
        self._browsers = BrowserCookies(key, https=configuration.public_url.startswith("https:"), clock=clock)
        self._rules = RedirectRules(configuration.clients, store, clock)
        self.clients = OAuthClients(
            store,
            self._rules,
            documents or ClientDocuments(),
            key=key,
            clock=clock,
            on_event=on_event,
        )
        self._store = store
        self._directory = directory
        self._clock = clock
        self._grants = Grants(store, key=key, clock=clock, on_event=on_event)
        self._kind = renewing.kind if renewing else "password"
        self._rechecks = Rechecks(store, self._grants, renewing, clock=clock) if renewing else None

    @property
    def scopes_supported(self) -> list[str]:
        """The capabilities."""
        return list(CAPABILITIES)

    def get_routes(self, mcp_path: str | None = None) -> list[Route]:
        """Return the routes of the authorization server, and the metadata of the resource."""
        self.set_mcp_path(mcp_path)
        return handlers.routes(self, self._on_refusal, self._browsers.last_login)

    # What the pages ask.

    async def grant(
        self, pending: Pending, login: str, capabilities: Iterable[str], proof: Proof = BY_PASSWORD
    ) -> str:
        """Do what `issue_code` does, without holding others up. Raises the same."""
        chosen = list(capabilities)
        return await self._store.write(lambda db: self._granted(db, pending, login, chosen, proof))

    def issue_code(
        self, pending: Pending, login: str, capabilities: Iterable[str], proof: Proof = BY_PASSWORD
    ) -> str:
        """Grant what a person agreed to, and return where to send them: the client's address, with a code.

        Args:
            pending: what the client asked for.
            login: the name under which the person has just proved who they are.
            capabilities: what they ticked; only what was asked for and what they have counts.
            proof: how they did.

        Raises:
            Refused: nothing is left of it, the person may no longer log in or is not the one whom this request waits
                for, the client was revoked meanwhile, or its address is not allowed any longer.
        """
        with self._store.transaction() as db:
            return self._granted(db, pending, login, capabilities, proof)

    def _granted(
        self, db: sqlite3.Connection, pending: Pending, login: str, capabilities: Iterable[str], proof: Proof
    ) -> str:
        person = self._directory.find(login)
        held = set(capabilities) & set(pending.capabilities) & set(person.capabilities if person else ())
        granted = [capability for capability in CAPABILITIES if capability in held]
        if person is None or not granted:
            raise CommandRefused("nothing can be granted: you have none of the capabilities that the client asks for")
        self._still_allowed(db, pending)
        if pending.only_login not in {None, login}:
            raise CommandRefused("without a window this client is for whoever connected it before")
        if not self.clients.granted(db, pending, login):
            raise CommandRefused("this client is no longer registered here: connect it anew")
        return self._answer(pending, code=self._grants.issue_code(db, pending, login, granted, proof))

    def refuse(self, pending: Pending) -> str:
        """Return where to send a person who said no: the client's address, with `access_denied`.

        Raises:
            Refused: the client's address is not allowed any longer.
        """
        with self._store.transaction(write=False) as db:
            self._still_allowed(db, pending)
        return self._answer(pending, error="access_denied", error_description="The person refused")

    def _still_allowed(self, db: sqlite3.Connection, pending: Pending) -> None:
        """Look at the address again: the configuration may be another one since the request was signed."""
        let_in_as = still_let_in(db, pending.let_in_as, pending.asked_at)
        allowed = self._rules.read(db, let_in_as=let_in_as)
        if not allowed.allows(pending.redirect_uri):
            raise CommandRefused(
                f"{pending.redirect_host} is not an address that this relay allows any longer: "
                "see `sudo opencode-gateway clients known`"
            )

    def _answer(self, pending: Pending, **answer: str) -> str:
        if pending.state is not None:
            answer["state"] = pending.state
        return build_client_redirect(pending.redirect_uri, answer, iss=self.issuer)

    # What the SDK's handlers ask.

    async def get_client(self, client_id: str) -> AdmittedClient | None:
        """Return a client that is known here. None is fetched: see `OAuthClients.admit`."""
        return self.clients.known(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        """Admit a client; see `OAuthClients.register`."""
        self.clients.register(client_info)

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        """Return the address of the login page for a request that is in order. Nothing is stored."""
        if not isinstance(client, AdmittedClient):
            raise AuthorizeError("unauthorized_client", "the client was not admitted")
        if not self.is_ours(params.resource):
            raise AuthorizeError("invalid_target", f"the only resource here is {self.resource}")
        if not _CHALLENGE.fullmatch(params.code_challenge):
            raise AuthorizeError("invalid_request", "code_challenge is not one of S256")
        asked = params.scopes or []
        redirect_uri = client.allowed.as_written(params.redirect_uri)
        pending = Pending(
            client_id=client.client_id,
            client_name=client.client_name or "",
            document=client.document,
            auth_method=client.credentials.auth_method,
            redirect_uri=redirect_uri,
            redirect_uri_explicit=params.redirect_uri_provided_explicitly,
            state=params.state,
            challenge=params.code_challenge,
            asked_at=self._clock(),
            capabilities=tuple(capability for capability in CAPABILITIES if capability in asked),
            resource=self.resource,
            only_login=client.only_login,
            let_in_as=client.allowed.let_in_as([redirect_uri]),
        )
        return f"{self.issuer}{LOGIN_PATH}?request={self.requests.sign(pending)}"

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        """Return a code that was not used and is not over, and whose address is allowed still."""
        code = await self._grants.code(authorization_code, client.client_id)
        if code is None or code.resource != self.resource or code.kind != self._kind:
            return None
        if not isinstance(client, AdmittedClient) or not client.allowed.allows(code.redirect_uri):
            return None
        return AuthorizationCode(
            code=authorization_code,
            scopes=code.capabilities,
            expires_at=code.expires_at,
            client_id=code.client_id,
            code_challenge=code.challenge,
            redirect_uri=AnyUrl(code.redirect_uri),
            redirect_uri_provided_explicitly=code.redirect_uri_explicit,
            resource=code.resource,
            subject=code.login,
        )

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        """Begin a session."""
        capabilities = self._present(authorization_code.subject, authorization_code.scopes)
        pair = await self._grants.exchange(authorization_code.code, client.client_id)
        return self._tokens(pair, capabilities)

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
        """Return a refresh token that is good, or is good again: see `rounds`."""
        token = await self._grants.refresh_token(refresh_token, client.client_id)
        if token is None or not self._is_of_here(token):
            return None
        return RefreshToken(
            token=refresh_token,
            client_id=token.client_id,
            scopes=token.capabilities,
            expires_at=int(token.expires_at),
            resource=token.resource,
            subject=token.login,
        )

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        """Rotate, once the provider was asked, where there is one."""
        capabilities = self._present(refresh_token.subject, scopes)
        found = await self._grants.refresh_token(refresh_token.token, client.client_id)
        if found is not None and self._rechecks is not None:
            try:
                await self._rechecks.check(found, at_once=True)
            except LoginEnded as ended:
                raise TokenError("invalid_grant", str(ended)) from ended
        pair = await self._grants.rotate(
            refresh_token.token, client.client_id, [name for name in CAPABILITIES if name in scopes]
        )
        return self._tokens(pair, capabilities)

    async def load_access_token(self, token: str) -> AccessToken | None:
        """Return what a token may do now: what was granted, as far as the person still has it.

        Raises:
            TokenVerificationError: that cannot be established now.
        """
        try:
            found = self._grants.access_token(token)
            person = None if found is None else self._directory.find(found.login)
            if found is None or person is None or not self._is_of_here(found):
                return None
            if self._rechecks is not None:
                await self._rechecks.check(found)
        except LoginEnded:
            return None
        except GatewayError as error:
            raise TokenVerificationError(str(error)) from error
        return AccessToken(
            token=token,
            client_id=found.client_id,
            scopes=[name for name in found.capabilities if name in person.capabilities],
            expires_at=int(found.expires_at),
            resource=found.resource,
            subject=found.login,
            claims={
                "login": found.login,
                "client_name": found.client_name,
                "kind": found.kind,
                "session": found.session_id,
            },
        )

    async def revoke_token(self, token: Any) -> None:
        """End the session that a token is of."""
        await self._grants.revoke(token.token, token.client_id)

    async def revoke(self, token: str, client_id: str) -> None:
        """End the session that a token of this client's is of; any other token is passed over (RFC 7009, 2.2)."""
        await self._grants.revoke(token, client_id)

    def is_ours(self, resource: str | None) -> bool:
        """Tell whether this names our resource; None does (RFC 8707 lets it be left out)."""
        if resource is None:
            return True
        try:
            return str(_URL.validate_python(resource)).removesuffix("/") == str(_URL.validate_python(self.resource))
        except ValidationError:
            return False

    def _is_of_here(self, token: Token) -> bool:
        """Tell whether it is for this gateway, as people log in to it now: another way had other checks."""
        return token.resource == self.resource and token.kind == self._kind

    def _present(self, login: str | None, granted: Iterable[str]) -> list[str]:
        person = self._directory.find(login) if login else None
        if person is None:
            raise TokenError("invalid_grant", "this person may no longer log in")
        return [name for name in CAPABILITIES if name in granted and name in person.capabilities]

    def _tokens(self, pair: Pair | None, capabilities: list[str]) -> OAuthToken:
        if pair is None:
            raise TokenError("invalid_grant", "this was used already")
        left = lifetimes.ACCESS_SECONDS if pair.ends_at is None else int(pair.ends_at - self._clock())
        return OAuthToken(
            access_token=pair.access,
            # Nobody is told to renew what cannot be.
            refresh_token=pair.refresh if pair.ends_at is None else None,
            expires_in=max(1, min(lifetimes.ACCESS_SECONDS, left)),
            scope=" ".join(capabilities),
        )
