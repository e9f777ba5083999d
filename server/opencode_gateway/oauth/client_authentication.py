"""Who calls the token endpoint: a client is what it says it is only if it proves so as it agreed to.

A public client names itself and proves nothing more: its code is bound to PKCE. One with a secret sends that, and one
with keys a signed assertion (RFC 7523), which FastMCP checks: signature, audience, issuer, subject, times, and that
it was not used before. What is more, or less, or other than was agreed on is refused.

The SDK's `ClientAuthenticator` compares with a secret that it is given, and we have the hash alone; nor does it take
a client that names itself in nothing but the header or the assertion. Hence it is not used.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import unquote_plus

from fastmcp.server.auth.cimd import CIMDAssertionValidator, CIMDDocument
from fastmcp.utilities.auth import decode_jwt_header, decode_jwt_payload
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse

from opencode_gateway.oauth.clients import NotAdmitted
from opencode_gateway.oauth.documents import DocumentRefused, DocumentUnreachable
from opencode_gateway.oauth.enrolment import how_to_open
from opencode_gateway.pages.visits import address_of
from opencode_gateway.store import hashed

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from opencode_gateway.oauth.clients import AdmittedClient, OAuthClients

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ANEW: Final = f"remove this relay in the chat client; {how_to_open()}, then connect it anew"


class NotAuthenticated(NotAdmitted):
    """A client does not prove that it is the one which it names."""

    def __init__(self, reason: str, *, client: str = "", later: bool = False) -> None:
        """`later`: it cannot be told now, and the client may ask again."""
        remedy = "it tries again by itself, or connect it again in a minute" if later else _ANEW
        super().__init__("authentication", reason, remedy=remedy, client=client)
        self.later = later


def not_authenticated(request: Request, error: NotAuthenticated) -> Response:
    """Return what a client is answered that did not prove itself."""
    code, status = ("temporarily_unavailable", 503) if error.later else ("invalid_client", 401)
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
    if status == 401 and "authorization" in request.headers:
        headers["WWW-Authenticate"] = 'Basic realm="opencode-gateway"'  # RFC 6749, 5.2
    return JSONResponse({"error": code, "error_description": error.refusal.told}, status_code=status, headers=headers)


_Seconds = Annotated[float, Field(allow_inf_nan=False)]


class _Claims(BaseModel):
    """Of an assertion, before anybody has looked at its signature."""

    model_config = ConfigDict(strict=True)

    iss: str
    sub: str
    aud: str | list[str]
    exp: _Seconds
    iat: _Seconds | None = None
    nbf: _Seconds | None = None
    jti: Annotated[str, Field(min_length=1, max_length=256)]
    """What is remembered of it, until it would be over."""


class _Sent(BaseModel):
    """What a request says of who sends it."""

    client_id: str
    secret: str | None = None
    assertion: str | None = None
    claims: _Claims | None = None
    key_id: str | None = None


class ClientAuthentication:
    """Tells which client a request to `/token` or `/revoke` comes from.

    Args:
        clients: who is known.
        issuer: of this server; an assertion is for it, or for one of its two endpoints.
    """

    def __init__(self, clients: OAuthClients, issuer: str) -> None:
        self._clients = clients
        self._audiences = (f"{issuer}/token", issuer, f"{issuer}/", f"{issuer}/revoke")
        # Two, as each has room for so many ids of assertions: who has registered must not use up ChatGPT's. They are
        # forgotten at a restart; an assertion is over within five minutes, and is of no use without a code or token.
        self._documents_assertions = CIMDAssertionValidator()  # type: ignore[no-untyped-call] # fastmcp's
        self._registered_assertions = CIMDAssertionValidator()  # type: ignore[no-untyped-call] # fastmcp's

    async def client_of(self, request: Request) -> AdmittedClient:
        """Return the client that sends `request`.

        Raises:
            NotAuthenticated: it does not say who it is, is not known, or does not prove itself as agreed.
        """
        sent = await _sent(request)
        client = self._clients.known(sent.client_id)
        if client is None:
            raise NotAuthenticated("this client is not registered here", client=sent.client_id)
        name = client.client_name or ""
        credentials = client.credentials
        if sent.claims is not None:
            await self._check_assertion(client, sent, address_of(request))
        elif credentials.has_secret:
            if sent.secret is None or credentials.secret_hash is None:
                raise NotAuthenticated("the client has a secret, and does not send it", client=name)
            if not hmac.compare_digest(hashed(sent.secret).hex(), credentials.secret_hash):
                raise NotAuthenticated("the client's secret is wrong", client=name)
        elif sent.secret is not None:
            raise NotAuthenticated("the client sends a secret, and has none", client=name)
        elif credentials.auth_method != "none":
            raise NotAuthenticated("the client signs its requests, and this one is not signed", client=name)
        return client

    async def _check_assertion(self, client: AdmittedClient, sent: _Sent, address: str) -> None:
        assert sent.claims is not None  # noqa: S101 # for the type: the caller has looked
        assert sent.assertion is not None  # noqa: S101 # it holds the claims
        name = client.client_name or ""
        if not client.document and client.credentials.auth_method != "private_key_jwt":
            raise NotAuthenticated("the client sends an assertion, and has registered no key", client=name)
        if not client.is_granted:
            # It has no code and no token. Strangers who registered must not make us fetch, check and remember.
            raise NotAuthenticated("nobody has granted this client anything yet", client=name)
        audiences = {sent.claims.aud} if isinstance(sent.claims.aud, str) else set(sent.claims.aud)
        ours = next((audience for audience in self._audiences if audience in audiences), None)
        if ours is None or not audiences <= set(self._audiences):
            raise NotAuthenticated("the client's assertion is for another server", client=name)
        if not sent.claims.iss == sent.claims.sub == client.client_id:
            raise NotAuthenticated("the client's assertion is about another client", client=name)
        try:
            keys = await self._clients.keys(client, key_id=sent.key_id, address=address)
        except DocumentUnreachable as error:
            raise NotAuthenticated(str(error), client=name, later=True) from error
        except DocumentRefused as error:
            raise NotAuthenticated(str(error), client=name) from error
        validator = self._documents_assertions if client.document else self._registered_assertions
        # It looks at nothing of the document but its keys.
        holder = CIMDDocument.model_validate(
            {"client_id": self._audiences[0], "redirect_uris": ["https://client.invalid/"], "jwks": keys}
        )
        try:
            await validator.validate_assertion(sent.assertion, client.client_id, ours, holder)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # Beside the first, which it documents: what keys and headers lead to that are not what they should be.
            raise NotAuthenticated(
                "the client's assertion is not valid: it is not signed with its key, is over, or was used before",
                client=name,
            ) from error


async def _sent(request: Request) -> _Sent:
    form: dict[str, Any] = dict(await request.form())
    # What is empty counts as not sent (RFC 6749, 3.2).
    named, secret, assertion = (
        str(form.get(name) or "") for name in ("client_id", "client_secret", "client_assertion")
    )
    kind = str(form.get("client_assertion_type") or "")
    header_id, header_secret = _basic(request.headers.get("authorization", ""))
    if sum(map(bool, (secret, header_secret, assertion or kind))) > 1:
        raise NotAuthenticated("the client proves itself in more than one way", client=named)
    claims = key_id = None
    if assertion or kind:
        if kind != ASSERTION_TYPE:
            raise NotAuthenticated(f"client_assertion_type must be {ASSERTION_TYPE}", client=named)
        claims, key_id = _read(assertion, named)
    names = {name for name in (named, header_id, claims.sub if claims else "") if name}
    if len(names) != 1:
        reason = "the client names itself twice, and not alike" if names else "the client does not say who it is"
        raise NotAuthenticated(reason, client=named)
    return _Sent(
        client_id=names.pop(),
        secret=secret or header_secret or None,
        assertion=assertion or None,
        claims=claims,
        key_id=key_id,
    )


def _basic(header: str) -> tuple[str, str]:
    """Return the id and secret of HTTP Basic (RFC 6749, 2.3.1: each is encoded as in a form); empty if it is not."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise NotAuthenticated("the Authorization header is not valid Basic authentication")
    return unquote_plus(name), unquote_plus(secret)


def _read(assertion: str, named: str) -> tuple[_Claims, str | None]:
    """Return an assertion's claims, which nobody has checked yet, and the id of the key that it says it has."""
    try:
        header = decode_jwt_header(assertion)
        claims = _Claims.model_validate(decode_jwt_payload(assertion))
        key_id = header.get("kid")
    except (ValidationError, ValueError, AttributeError, RecursionError) as error:
        raise NotAuthenticated("the client's assertion is not one", client=named) from error
    return claims, key_id if isinstance(key_id, str) else None
