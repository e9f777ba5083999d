"""Who somebody is, as GitHub, Google or an OpenID provider says it.

FastMCP's verifier of signed tokens is used, but none of its ready-made providers: GitHub's hands on the address of
the public profile, which nobody has verified; Google's takes the string "false" for a verified address; and the
generic one believes whichever issuer the discovery document names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import httpx2
from fastmcp.server.auth import JWTVerifier
from pydantic import BaseModel, ValidationError

from opencode_gateway.errors import ConfigError
from opencode_gateway.sign_in.asking import TIMEOUT_SECONDS, owner_of, understood
from opencode_gateway.sign_in.step import ProviderFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opencode_gateway.sign_in.asking import Authentication

GOOGLE_ISSUER: Final = "https://accounts.google.com"
GITHUB: Final = "https://github.com"
GITHUB_API: Final = "https://api.github.com"
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
"""Of id tokens; the first of them that a provider knows."""


@dataclass(frozen=True)
class Endpoints:
    """Where a provider is, and what it is asked for."""

    authorization: str
    token: str
    scopes: tuple[str, ...]
    authentication: Authentication = "client_secret_post"
    parameters: Mapping[str, str] = field(default_factory=dict)
    """More ones of the authorization request."""


@dataclass(frozen=True)
class Claim:
    """The address that a provider has for somebody, as it came."""

    address: object
    verified: object


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
        known = document.id_token_signing_alg_values_supported
        algorithm = next((each for each in _ALGORITHMS if each in known), None)
        if algorithm is None:
            raise ConfigError(f"sign_in.issuer: {issuer} signs in no way that can be checked with a public key")
        issuers = [document.issuer]
        if kind == "google":
            issuers.append(urlsplit(issuer).netloc)  # as Google's documentation has it
        self._verifier = JWTVerifier(
            jwks_uri=document.jwks_uri, issuer=issuers, audience=client_id, algorithm=algorithm
        )
        self._client_id = client_id
        self._document = document
        methods = document.token_endpoint_auth_methods_supported or ("client_secret_basic",)
        offline = "offline_access" in (document.scopes_supported or ())
        self.endpoints = Endpoints(
            authorization=document.authorization_endpoint,
            token=document.token_endpoint,
            scopes=("openid", "email", "offline_access") if offline else ("openid", "email"),
            authentication="client_secret_basic" if "client_secret_basic" in methods else "client_secret_post",
            # Google gives no refresh token otherwise.
            parameters={"access_type": "offline", "prompt": "consent"} if kind == "google" else {},
        )

    def sent(self, iss: str | None) -> bool:
        """Tell whether an answer with this `iss` can be one of the provider's (RFC 9207)."""
        if iss is None:
            return not self._document.authorization_response_iss_parameter_supported
        return iss == self._document.issuer

    async def claim(self, tokens: Mapping[str, Any], nonce: str | None) -> Claim | None:
        """Return whose these tokens are, which came from the token endpoint; None where a renewal does not say.

        Args:
            tokens: its answer.
            nonce: of the login; None for a renewal.

        Raises:
            ProviderFailed: it cannot be established.
            RefusedByProvider: the tokens are not good any longer.
        """
        signed = tokens.get("id_token")
        if signed is None and nonce is None:
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
        if nonce is not None and claims.get("nonce") != nonce:
            raise ProviderFailed(f"{self.name} gave an id token of another login")
        if "email" not in claims and self._document.userinfo_endpoint is not None:
            subject = claims.get("sub")
            with understood(self.name):
                claims = await owner_of(self._document.userinfo_endpoint, tokens["access_token"])
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

    def sent(self, iss: str | None) -> bool:
        """See `OpenID`. GitHub publishes no issuer that could be compared."""
        return True

    async def claim(self, tokens: Mapping[str, Any], nonce: str | None) -> Claim | None:
        """See `OpenID`. There is no id token, and so no nonce: PKCE binds the login."""
        with understood(self.name):
            for entry in await owner_of(self._emails, tokens["access_token"]):
                if entry["primary"] is True:
                    return Claim(entry["email"], entry["verified"])
        return Claim(None, verified=False)


Identity = OpenID | GitHub
"""One provider."""


class _Discovery(BaseModel):
    """What is used of a discovery document (OpenID Connect Discovery 1.0, 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    id_token_signing_alg_values_supported: tuple[str, ...]
    token_endpoint_auth_methods_supported: tuple[str, ...] | None = None
    scopes_supported: tuple[str, ...] | None = None
    authorization_response_iss_parameter_supported: bool = False


def _discover(issuer: str) -> _Discovery:
    """Read the discovery document of an issuer, which must be about that issuer."""
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        response = httpx2.get(url, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        document = _Discovery.model_validate(response.json())
    except httpx2.HTTPStatusError as error:
        raise ConfigError(
            f"sign_in.issuer: {url} answers {error.response.status_code}; see that it is right"
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ConfigError(f"sign_in.issuer: {url} cannot be reached ({error}); nobody could log in") from error
    except (ValidationError, ValueError, TypeError) as error:
        raise ConfigError(f"sign_in.issuer: {url} is no discovery document of an OpenID provider") from error
    if document.issuer.rstrip("/") != issuer.rstrip("/"):
        raise ConfigError(f"sign_in.issuer: {url} is about another issuer, {document.issuer[:200]!r}")
    for address in (
        document.authorization_endpoint,
        document.token_endpoint,
        document.jwks_uri,
        document.userinfo_endpoint,
    ):
        if address is not None and urlsplit(address).scheme != "https":
            raise ConfigError(f"sign_in.issuer: {url} names an address that is not https, {address[:200]!r}")
    return document
