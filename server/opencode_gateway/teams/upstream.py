"""What is asked of an identity provider: who somebody is, at login and again whenever their session there is renewed.

Of FastMCP the proxy, its client of token endpoints and its verifier of signed tokens are used, but not the ready-made
providers: GitHub's hands on the address of the public profile, which nobody has verified; Google's takes the string
"false" for a verified address; and the generic one believes whichever issuer the discovery document names.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from urllib.parse import urlsplit

import httpx2
from fastmcp.server.auth import TokenVerificationError
from fastmcp.server.auth.oauth_proxy.upstream import AsyncOAuth2Client, OAuthError
from fastmcp.server.auth.oidc_proxy import OIDCConfiguration
from fastmcp.server.auth.providers.jwt import JWTVerifier
from pydantic import ValidationError

from opencode_gateway.errors import ConfigError, GatewayError
from opencode_gateway.teams.people import PersonRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from opencode_gateway.teams.people import People


TIMEOUT_SECONDS: Final = 10.0
RECHECK_SECONDS: Final = 3600
"""How long a login counts at most before the provider is asked again, where it can be asked without the person."""
UNTOLD_SECONDS: Final = 3600
"""How long a login counts whose length the provider does not say, and which cannot be renewed."""
MAX_SECONDS: Final = 24 * 3600
GOOGLE_ISSUER: Final = "https://accounts.google.com"
GITHUB: Final = "https://github.com"
GITHUB_API: Final = "https://api.github.com"
_ASKED_AGAIN: Final = "asked-again:"
"""Before a GitHub token that stands for a refresh token, of which GitHub gives none."""
_ALGORITHMS: Final = (
    "RS256",
    "ES256",
    "PS256",
    "RS384",
    "ES384",
    "PS384",
    "RS512",
    "ES512",
    "PS512",
    "Ed25519",
    "EdDSA",
)
_ENDED: Final = frozenset({"invalid_grant", "bad_refresh_token"})


class ProviderFailed(GatewayError, TokenVerificationError):
    """The provider does not answer, or not as it must. Nobody is let in on it; sessions may go on once it is back.

    FastMCP passes this kind of error on, instead of taking the token for a bad one.
    """


@dataclass(frozen=True)
class Endpoints:
    """Where a provider is, and what it is asked for."""

    authorization: str
    token: str
    scopes: tuple[str, ...]
    authentication: Literal["client_secret_basic", "client_secret_post"] = "client_secret_post"
    parameters: Mapping[str, str] = field(default_factory=dict)
    """More ones of the authorization request."""


@dataclass(frozen=True)
class Claim:
    """The address that a provider has for somebody, as it came."""

    address: object
    verified: object


class Identity(Protocol):
    """One provider."""

    @property
    def kind(self) -> Literal["github", "google", "oidc"]:
        """The mode of `sign_in`."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def endpoints(self) -> Endpoints:
        """Where it is."""

    async def claim(self, tokens: Mapping[str, Any]) -> Claim | None:
        """Return whose these tokens are, which came from the token endpoint; None where a renewal does not say.

        Raises:
            ProviderFailed: it cannot be established.
            OAuthError: the tokens are not good any longer.
        """


def nonce(verifier: str) -> str:
    """Return what the id token of a login must repeat, for providers that do not look at PKCE.

    Made from the secret of PKCE, which FastMCP keeps for each login, and which it does not tell.
    """
    return hashlib.sha256(b"nonce " + verifier.encode()).hexdigest()


class OpenID:
    """Google, or any OpenID provider: who somebody is stands in a signed id token, or at the userinfo endpoint.

    Args:
        issuer: where the discovery document is. It is read here, once.

    Raises:
        ConfigError: it cannot be read, or is not one that can be used.
    """

    def __init__(self, kind: Literal["google", "oidc"], issuer: str, client_id: str) -> None:
        self.kind = kind
        self.name = "Google" if kind == "google" else str(urlsplit(issuer).hostname)
        document = _discover(issuer)
        algorithm = next(
            (a for a in _ALGORITHMS if a in (document.id_token_signing_alg_values_supported or ())), None
        )
        if algorithm is None:
            raise ConfigError(f"sign_in.issuer: {issuer} signs in no way that can be checked with a public key")
        issuers = [str(document.issuer)]
        if kind == "google":
            issuers.append(urlsplit(issuer).netloc)  # as Google's documentation has it
        self._verifier = JWTVerifier(
            jwks_uri=str(document.jwks_uri), issuer=issuers, audience=client_id, algorithm=algorithm
        )
        self._client_id = client_id
        self._userinfo = str(document.userinfo_endpoint) if document.userinfo_endpoint else None
        methods = document.token_endpoint_auth_methods_supported or ("client_secret_basic",)
        offline = "offline_access" in (document.scopes_supported or ())
        self.endpoints = Endpoints(
            authorization=str(document.authorization_endpoint),
            token=str(document.token_endpoint),
            scopes=("openid", "email", "offline_access") if offline else ("openid", "email"),
            authentication="client_secret_basic" if "client_secret_basic" in methods else "client_secret_post",
            # Google gives no refresh token otherwise.
            parameters={"access_type": "offline", "prompt": "consent"} if kind == "google" else {},
        )

    async def claim(self, tokens: Mapping[str, Any]) -> Claim | None:
        """See `Identity`."""
        signed = tokens.get("id_token")
        if signed is None and "session" in tokens:
            # A renewal need not repeat who it is for (OpenID Connect Core, 12.2): that it was granted says enough.
            return None
        token = await self._verifier.verify_token(signed) if isinstance(signed, str) else None
        if token is None:
            raise ProviderFailed(f"{self.name} gave no id token that can be trusted")
        claims: Mapping[str, Any] = token.claims
        audience = claims.get("aud")
        alone = audience in (self._client_id, [self._client_id])
        if not isinstance(claims.get("exp"), int | float) or not (alone or claims.get("azp") == self._client_id):
            raise ProviderFailed(f"{self.name} gave an id token without an end, or for somebody else")
        if tokens.get("nonce") is not None and claims.get("nonce") != tokens["nonce"]:
            raise ProviderFailed(f"{self.name} gave an id token of another login")
        if "email" not in claims and self._userinfo is not None:
            subject = claims.get("sub")
            claims = await _get(self._userinfo, tokens["access_token"])
            if not isinstance(subject, str) or claims["sub"] != subject:
                raise ProviderFailed(f"{self.name} told of another person than the one who logged in")
        return Claim(claims.get("email"), claims.get("email_verified"))


class GitHub:
    """GitHub: who somebody is stands in the list of their addresses, of which the primary one counts."""

    kind: Literal["github"] = "github"
    name = "GitHub"

    def __init__(self) -> None:
        self._emails = f"{GITHUB_API}/user/emails?per_page=100"
        self.endpoints = Endpoints(
            authorization=f"{GITHUB}/login/oauth/authorize",
            token=f"{GITHUB}/login/oauth/access_token",
            scopes=("user:email",),
        )

    async def claim(self, tokens: Mapping[str, Any]) -> Claim | None:
        """See `Identity`."""
        for entry in await _get(self._emails, tokens["access_token"]):
            if entry["primary"] is True:
                return Claim(entry["email"], entry["verified"])
        return Claim(None, verified=False)


class AskingClient(AsyncOAuth2Client):
    """FastMCP's client of a token endpoint, which also establishes whose the tokens are.

    What it returns in place of the provider's answer is what FastMCP stores: no id token, and no scopes, which would
    otherwise be taken for ours. `person` is the listed address, `session` a new id.
    """

    def __init__(self, identity: Identity, people: People, client_id: str, client_secret: str) -> None:
        super().__init__(client_id, client_secret, identity.endpoints.authentication, TIMEOUT_SECONDS)
        self._identity = identity
        self._people = people

    async def fetch_token(self, url: str, *, grant_type: str = "authorization_code", **params: Any) -> dict[str, Any]:
        """Log somebody in with an authorization code.

        Raises:
            PersonRefused: they are not let in.
            ProviderFailed: the provider does not answer, or not as it must.
        """
        try:
            answer = await self._answer(super().fetch_token(url, grant_type=grant_type, **params))
            checked = await self._checked(answer | {"nonce": nonce(params["code_verifier"])})
            return checked | {"session": secrets.token_hex(8)}
        except OAuthError as error:
            raise ProviderFailed(f"{self._identity.name} did not accept this login ({error.error})") from error

    async def refresh_token(self, url: str, *, refresh_token: str | None = None, **params: Any) -> dict[str, Any]:
        """Renew somebody's session at the provider.

        Raises:
            PersonRefused: they are not let in any longer.
            ProviderFailed: the provider does not answer, or not as it must.
            OAuthError: `invalid_grant`, the session there has ended.
        """
        held = refresh_token or ""
        try:
            if held.startswith(_ASKED_AGAIN):
                answer: dict[str, Any] = {"access_token": held.removeprefix(_ASKED_AGAIN)}
            else:
                answer = await self._answer(super().refresh_token(url, refresh_token=held, **params))
            return await self._checked(answer | {"session": True, "nonce": None})
        except OAuthError as error:
            if error.error in _ENDED:
                raise OAuthError("invalid_grant") from error
            raise ProviderFailed(f"{self._identity.name} did not renew a session ({error.error})") from error

    async def _answer(self, asking: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        try:
            answer = await asking
            if isinstance(answer["access_token"], str) and answer["access_token"]:
                return answer
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ProviderFailed(f"{self._identity.name} does not answer: try again later") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ProviderFailed(f"{self._identity.name} gave an answer that cannot be used") from error
        raise ProviderFailed(f"{self._identity.name} gave an answer without a token")

    async def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return what is stored of an answer of the token endpoint, once its person is found to be let in."""
        try:
            claim = await self._identity.claim(answer)
            refresh = answer.get("refresh_token") or None
            seconds = min(int(answer.get("expires_in") or UNTOLD_SECONDS), MAX_SECONDS)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ProviderFailed(f"{self._identity.name} does not answer: try again later") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ProviderFailed(f"{self._identity.name} gave an answer that cannot be used") from error
        stored: dict[str, Any] = {"access_token": answer["access_token"], "token_type": "Bearer"}
        if claim is not None:
            stored["person"] = self._people.admit(
                claim.address, verified=claim.verified, provider=self._identity.name
            )
        if refresh is None and self._identity.kind == "github":
            refresh = _ASKED_AGAIN + str(answer["access_token"])
        if refresh is not None:
            stored["refresh_token"] = str(refresh)
            seconds = min(seconds, RECHECK_SECONDS)
        if seconds <= 0:
            raise ProviderFailed(f"{self._identity.name} gave a token that has ended")
        return stored | {"expires_in": seconds, "expires_at": int(time.time()) + seconds}


@dataclass
class Login:
    """What became of the code that a provider's callback brought."""

    stored: dict[str, Any] | None = None
    failure: PersonRefused | ProviderFailed | None = None


LOGIN: ContextVar[Login | None] = ContextVar("LOGIN", default=None)


class ReportingClient(AskingClient):
    """Says what became of a login, which the proxy would tell in a page of its own, as an error of ours."""

    async def fetch_token(self, url: str, *, grant_type: str = "authorization_code", **params: Any) -> dict[str, Any]:
        """See `AskingClient`."""
        login = LOGIN.get() or Login()
        try:
            login.stored = await super().fetch_token(url, grant_type=grant_type, **params)
        except (PersonRefused, ProviderFailed) as failure:
            login.failure = failure
            raise
        return login.stored


def _discover(issuer: str) -> OIDCConfiguration:
    """Read the discovery document of an issuer, which must be about that issuer."""
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        response = httpx2.get(url, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        document = OIDCConfiguration.model_validate(response.json())
    except httpx2.HTTPStatusError as error:
        raise ConfigError(
            f"sign_in.issuer: {url} answers {error.response.status_code}; see that it is right"
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ConfigError(f"sign_in.issuer: {url} cannot be reached ({error}); nobody could log in") from error
    except (ValidationError, ValueError, TypeError) as error:
        raise ConfigError(f"sign_in.issuer: {url} is no discovery document of an OpenID provider") from error
    if str(document.issuer).rstrip("/") != issuer.rstrip("/"):
        raise ConfigError(f"sign_in.issuer: {url} is about another issuer, {str(document.issuer)[:200]!r}")
    for address in (
        document.authorization_endpoint,
        document.token_endpoint,
        document.jwks_uri,
        document.userinfo_endpoint,
    ):
        if address is not None and urlsplit(str(address)).scheme != "https":
            raise ConfigError(f"sign_in.issuer: {url} names an address that is not https, {str(address)[:200]!r}")
    return document


async def _get(url: str, token: str) -> Any:
    """Return what the provider says about the owner of an access token, parsed."""
    async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
        response = await client.get(url, headers={"Authorization": f"Bearer {token}", "Accept": "application/json"})
    if response.status_code == 401:
        raise OAuthError("invalid_grant")
    response.raise_for_status()
    return response.json()
