"""The endpoints: the SDK's handlers, and what they lack.

- Bodies and parameters are bounded before anything looks at them, and none may be repeated (RFC 6749, 3.1).
- PKCE without a method means `plain` (RFC 7636, 4.3), which the SDK takes for S256: it is refused.
- `iss` is on errors too (RFC 9207); `resource` of a token request is looked at (RFC 8707).
- A client proves itself as `client_authentication` says: the SDK's handlers know no assertion, want `client_id` in
  the form whatever else names the client, and let no public client revoke.
- What is refused is told with what helps, and reported: see `refused`.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlencode

from fastmcp.server.auth.cimd import ASSERTION_ALGORITHMS
from fastmcp.server.auth.redirect_validation import build_client_redirect
from mcp.server.auth.handlers.authorize import AuthorizationHandler
from mcp.server.auth.handlers.register import RegistrationHandler
from mcp.server.auth.handlers.token import TokenHandler
from mcp.server.auth.middleware.client_auth import ClientAuthenticator
from mcp.server.auth.provider import AuthorizeError
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.server.transport_security import RequestBodyLimitMiddleware
from mcp.shared.auth import OAuthMetadata
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response

from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.errors import GatewayError
from opencode_gateway.oauth import well_known
from opencode_gateway.oauth.client_authentication import ClientAuthentication, NotAuthenticated, not_authenticated
from opencode_gateway.oauth.clients import AdmittedClient, NotAdmitted
from opencode_gateway.oauth.credentials import METHODS, agreed
from opencode_gateway.oauth.refused import (
    CLIENTS_AFFAIR,
    FORM,
    NO_STORE,
    asked_by,
    is_persons,
    oauth_error,
    refusal_in,
    told,
)
from opencode_gateway.oauth.requests import MAX_REDIRECT_URI, MAX_REGISTERED_ID, MAX_STATE
from opencode_gateway.pages.rendering import unavailable_page
from opencode_gateway.pages.visits import address_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from mcp.server.auth.provider import AuthorizationParams
    from mcp.shared.auth import OAuthClientInformationFull
    from starlette.types import ASGIApp, Message

    from opencode_gateway.oauth.provider import Provider
    from opencode_gateway.refusals import Refusal

log = logging.getLogger(__name__)
MAX_FORM_BYTES: Final = 16 * 1024
MAX_METADATA_BYTES: Final = 32 * 1024
MAX_PARAMETER: Final = 4096
_LONGEST: Final = {"client_id": MAX_REGISTERED_ID, "redirect_uri": MAX_REDIRECT_URI, "state": MAX_STATE}
_REPEATABLE: Final = frozenset({"resource"})


def routes(
    provider: Provider, on_refusal: Callable[[Refusal], None], last_login: Callable[[Request], str | None]
) -> list[Route]:
    """Return all endpoints of the authorization server.

    Args:
        provider: answers.
        on_refusal: hears of what they refuse.
        last_login: says who logged in last from the browser of a request.
    """
    authentication = ClientAuthentication(provider.clients, provider.issuer)

    def kept(
        handle: Callable[[Request], Awaitable[Response]], limit: int = MAX_FORM_BYTES, kind: str | None = FORM
    ) -> ASGIApp:
        return bounded(handle, limit, kind, on_refusal=on_refusal, named=named)

    async def named(client_id: str) -> str:
        client = None
        with suppress(GatewayError):  # a file that does not serve now: the id must do
            client = await provider.get_client(client_id)
        return (client.client_name if client else None) or client_id

    return [
        *well_known.routes(_metadata(provider.issuer), provider.resource, provider.issuer),
        Route("/authorize", kept(_Authorization(provider, last_login).handle), methods=["GET", "POST"]),
        Route("/token", kept(_Token(provider, authentication).handle), methods=["POST"]),
        Route("/revoke", kept(_Revocation(provider, authentication).handle), methods=["POST"]),
        Route("/register", kept(_Registration(provider).handle, MAX_METADATA_BYTES, None), methods=["POST"]),
    ]


def _metadata(issuer: str) -> OAuthMetadata:
    """RFC 8414. The issuer is `public_url` as it is written."""
    algorithms = sorted(ASSERTION_ALGORITHMS)
    return OAuthMetadata.model_validate(
        {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "registration_endpoint": f"{issuer}/register",
            "revocation_endpoint": f"{issuer}/revoke",
            "scopes_supported": list(CAPABILITIES),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            # Claude takes its document only where `none` is among them.
            "token_endpoint_auth_methods_supported": list(METHODS),
            "token_endpoint_auth_signing_alg_values_supported": algorithms,
            "revocation_endpoint_auth_methods_supported": list(METHODS),
            "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
            "code_challenge_methods_supported": ["S256"],
            "client_id_metadata_document_supported": True,
            "authorization_response_iss_parameter_supported": True,
        }
    )


def bounded(
    handle: Callable[[Request], Awaitable[Response]],
    limit: int,
    kind: str | None,
    *,
    on_refusal: Callable[[Refusal], None],
    named: Callable[[str], Awaitable[str]],
) -> ASGIApp:
    """Refuse bodies over `limit` bytes and those of another `kind`; answer 503 while our own files do not serve.

    Args:
        handle: answers. What it refuses is told, and reported.
        limit: in bytes.
        kind: the content type; None takes any.
        on_refusal: hears of what is refused.
        named: returns the name of the client of an id, or the id.
    """

    async def answered(request: Request) -> Response:
        sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        refusal: Refusal | None
        try:
            if kind and request.method == "POST" and sent != kind:
                # Never parsed: parts of an upload would become files here.
                response = oauth_error("invalid_request", f"the body must be {kind}", 400)
            else:
                response = await handle(request)
            refusal = refusal_in(response)
        except NotAuthenticated as failure:
            # Every client that `/token` or `/revoke` refuses for what it is comes by here.
            refusal = None if failure.later else failure.refusal
            response = not_authenticated(request, failure)
        except NotAdmitted as not_admitted:
            refusal = not_admitted.refusal
            response = told(request, refusal)
        except GatewayError as failure:
            log.error("%s is not answered: %s", request.url.path, failure)  # noqa: TRY400 # its message says all
            if is_persons(request):
                return unavailable_page()
            return oauth_error("temporarily_unavailable", "The gateway cannot use its files now", 503)
        if refusal is not None:
            on_refusal(await asked_by(request, refusal, named))
        return response

    return RequestBodyLimitMiddleware(request_response(answered), limit)


def _problem(pairs: Iterable[tuple[str, object]]) -> str | None:
    """Say what is wrong with the form of some parameters; None if nothing is."""
    seen = set()
    for name, value in pairs:
        if len(str(value)) > _LONGEST.get(name, MAX_PARAMETER):
            return f"{name} is too long" if name in _LONGEST else "a parameter is too long"
        if name in seen and name not in _REPEATABLE:
            return "a parameter is repeated"
        seen.add(name)
    return None


class _Authorization:
    """`/authorize`. A person's browser is here: what cannot be told the client is shown to them."""

    def __init__(self, provider: Provider, last_login: Callable[[Request], str | None]) -> None:
        self._provider = provider
        self._last_login = last_login

    async def handle(self, request: Request) -> Response:
        parameters = await request.form() if request.method == "POST" else request.query_params
        problem = _problem(parameters.multi_items())
        if problem:
            raise NotAdmitted("request", problem, remedy=CLIENTS_AFFAIR)
        client_id = str(parameters.get("client_id", ""))
        client = await self._provider.clients.admit(
            client_id, login=self._last_login(request), address=address_of(request)
        )
        name = client.client_name or client.client_id
        redirect_uri = parameters.get("redirect_uri")
        mine = [client.allowed.as_written(uri) for uri in client.redirect_uris or []]
        sent_to = mine if redirect_uri is None else [str(redirect_uri)]
        if not any(map(client.allowed.allows, sent_to)):
            raise NotAdmitted.of(client.allowed.refusal(sent_to, name))
        asking = _Asking(
            self._provider,
            client,
            resources=[str(resource) for resource in parameters.getlist("resource")],
            method_given="code_challenge_method" in parameters,
        )
        response = await AuthorizationHandler(cast("Provider", asking)).handle(request)
        location = response.headers.get("location")
        if location is None:
            raise NotAdmitted(
                "redirect",
                "redirect_uri is not one that this client registered",
                remedy="connect the client anew, so that it registers again",
                client=name,
            )
        if asking.accepted != location:
            response.headers["location"] = build_client_redirect(location, {}, iss=self._provider.issuer)
        return response


class _Asking:
    """What the SDK's handler sees of the provider in one request: the one client that was admitted to it."""

    def __init__(
        self, provider: Provider, client: AdmittedClient, *, resources: list[str], method_given: bool
    ) -> None:
        self._provider = provider
        self._client = client
        self._resources = resources
        self._method_given = method_given
        self.accepted: str | None = None
        """Where the login page is, once the request was found to be in order."""

    async def get_client(self, client_id: str) -> AdmittedClient | None:
        return self._client if client_id == self._client.client_id else None

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        if not self._method_given:
            raise AuthorizeError("invalid_request", "code_challenge_method must be S256")
        if not all(self._provider.is_ours(resource) for resource in self._resources):
            raise AuthorizeError("invalid_target", f"the only resource here is {self._provider.resource}")
        self.accepted = await self._provider.authorize(client, params)
        return self.accepted


class _Registration:
    """`/register`."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def handle(self, request: Request) -> Response:
        body = await request.body()
        asked: Any = None
        try:
            asked = json.loads(body)
            if isinstance(asked, dict) and isinstance(asked.get("token_endpoint_auth_method"), str | None):
                # The SDK's handler knows no keys, and makes secrets of its own: what the client gets is agreed below.
                body = json.dumps(asked | {"token_endpoint_auth_method": "none", "jwks_uri": None}).encode()
        except (ValueError, RecursionError):
            pass  # which the SDK's handler says
        registering = _Registering(self._provider, asked, address_of(request))
        handler = RegistrationHandler(cast("Provider", registering), ClientRegistrationOptions(enabled=True))
        return await handler.handle(_with_body(request, body))


class _Registering:
    """What the SDK's handler sees of the provider in one request: it does not say all that was asked, nor by whom."""

    def __init__(self, provider: Provider, asked: dict[str, Any], address: str) -> None:
        self._provider = provider
        self._asked = asked
        self._address = address

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        clients = self._provider.clients
        credentials, secret = agreed(self._asked, may_fetch_keys=clients.may_fetch_keys)
        clients.register(client_info, credentials=credentials, secret=secret, address=self._address)


class _Token:
    """`/token`."""

    def __init__(self, provider: Provider, authentication: ClientAuthentication) -> None:
        self._provider = provider
        self._authentication = authentication

    async def handle(self, request: Request) -> Response:
        form = await request.form()
        problem = _problem(form.multi_items())
        if problem:
            return oauth_error("invalid_request", problem, 400)
        if not all(self._provider.is_ours(str(resource)) for resource in form.getlist("resource")):
            return oauth_error("invalid_target", f"the only resource here is {self._provider.resource}", 400)
        client = await self._authentication.client_of(request)
        pairs = [(name, str(value)) for name, value in form.multi_items() if name != "client_id"]
        named = _with_body(request, urlencode([*pairs, ("client_id", client.client_id)]).encode())
        response: Response = await TokenHandler(self._provider, _Authenticated(self._provider, client)).handle(named)
        return response


class _Authenticated(ClientAuthenticator):
    """What the SDK's handler is told of a client that has proved itself."""

    def __init__(self, provider: Provider, client: AdmittedClient) -> None:
        super().__init__(provider)
        self._client = client

    async def authenticate_request(self, request: Request) -> AdmittedClient:
        return self._client


class _Revocation:
    """`/revoke`, RFC 7009: a token that is not the client's, or not there, is revoked already."""

    def __init__(self, provider: Provider, authentication: ClientAuthentication) -> None:
        self._provider = provider
        self._authentication = authentication

    async def handle(self, request: Request) -> Response:
        form = await request.form()
        problem = _problem(form.multi_items()) or ("token is missing" if not form.get("token") else None)
        if problem:
            return oauth_error("invalid_request", problem, 400)
        client = await self._authentication.client_of(request)
        await self._provider.revoke(str(form["token"]), client.client_id)
        return Response(headers=NO_STORE)


def _with_body(request: Request, body: bytes) -> Request:
    """Return the same request with another body."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, receive)
