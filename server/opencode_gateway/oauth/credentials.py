"""What a client has agreed to prove itself with at the token endpoint, and what of it we keep.

A client that registers gets what it asks for by name:

- `client_secret_post`, `client_secret_basic`: a secret of 256 bits, of which we keep a hash. It may send the secret
  either way, as clients do that go by our metadata and not by our answer.
- `private_key_jwt` with keys: inline, or on a host from which we fetch. Without, it is answered `none`.
- `none`, or `none` among what it offers, or nothing at all: `none`. To name nothing means `client_secret_basic` in
  RFC 7591, but who names nothing (VS Code, both SDKs unless they are told) goes by the answer, works as a public
  client, and needs no secret kept; a server may choose (3.2.1), and the answer says so.

Whoever registered before there were secrets is `none`. Guesses at a secret need no brake: 2^256 are too many.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any, Final, Literal

from mcp.server.auth.provider import RegistrationError
from pydantic import AnyHttpUrl, BaseModel, ConfigDict

from opencode_gateway.store import hashed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

    from mcp.shared.auth import OAuthClientInformationFull

Method = Literal["none", "private_key_jwt", "client_secret_post", "client_secret_basic"]
METHODS: Final[tuple[Method, ...]] = ("none", "private_key_jwt", "client_secret_post", "client_secret_basic")
MAX_KEY_SET_BYTES: Final = 8 * 1024
"""Of a client that registers: what it sends is kept."""
MAX_KEYS: Final = 16
_SECRET_BYTES: Final = 32


class ClientCredentials(BaseModel):
    """How one client proves that it is itself. Its fields are columns of `clients`."""

    model_config = ConfigDict(frozen=True)

    auth_method: Method = "none"
    """What it must do at least. A document's client that need not sign may do so all the same."""
    secret_hash: str | None = None
    """SHA-256, in hexadecimal."""
    jwks: str | None = None
    """A key set, as JSON. A document's are asked of the document, which may have changed."""
    jwks_uri: str | None = None

    @property
    def has_secret(self) -> bool:
        """Whether it must send a secret."""
        return self.auth_method in {"client_secret_post", "client_secret_basic"}

    @classmethod
    def of(cls, row: Mapping[str, Any] | sqlite3.Row) -> ClientCredentials:
        """Read those of a client's row."""
        return cls(**{column: row[column] for column in cls.model_fields})

    def tell(self, answer: OAuthClientInformationFull, secret: str | None) -> None:
        """Put what was agreed on into what a client is answered that registers."""
        answer.token_endpoint_auth_method = self.auth_method
        answer.jwks = json.loads(self.jwks) if self.jwks else None
        answer.jwks_uri = AnyHttpUrl(self.jwks_uri) if self.jwks_uri else None
        answer.client_secret = secret
        answer.client_secret_expires_at = None if secret is None else 0


PUBLIC: Final = ClientCredentials()


def agreed(
    asked: Mapping[str, Any], *, may_fetch_keys: Callable[[str], bool]
) -> tuple[ClientCredentials, str | None]:
    """Return what a client that registers is given, and its secret, if it gets one, which is nowhere else.

    Args:
        asked: its metadata (RFC 7591), of which nothing was looked at.
        may_fetch_keys: tells whether we would fetch a `jwks_uri`.

    Raises:
        RegistrationError: its key set is not one.
    """
    method = asked.get("token_endpoint_auth_method")
    offered = asked.get("token_endpoint_auth_methods_supported")
    if isinstance(offered, list) and "none" in offered:
        return PUBLIC, None
    if method in {"client_secret_post", "client_secret_basic"}:
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        return ClientCredentials(auth_method=method, secret_hash=hashed(secret).hex()), secret
    if method != "private_key_jwt":
        return PUBLIC, None
    if asked.get("jwks") is not None:
        return ClientCredentials(auth_method="private_key_jwt", jwks=_kept(asked["jwks"])), None
    uri = asked.get("jwks_uri")
    if isinstance(uri, str) and may_fetch_keys(uri):
        return ClientCredentials(auth_method="private_key_jwt", jwks_uri=uri), None
    return PUBLIC, None


def key_set(value: object) -> dict[str, Any]:
    """Return those keys of a JSON Web Key Set that can check a signature; others are passed over (RFC 7517, 5).

    Raises:
        ValueError: it is none, has too many keys or none that serves, or holds a private one.
    """
    keys = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise ValueError(f"a key set is an object with a list of at most {MAX_KEYS} `keys`")
    if any(not isinstance(key, dict) or "d" in key or "k" in key for key in keys):
        raise ValueError("a key set holds public keys alone")
    serving = [key for key in keys if key.get("kty") in {"RSA", "EC"} and key.get("use", "sig") == "sig"]
    if not serving:
        raise ValueError("no key of the set is an RSA or EC key for signatures")
    return {"keys": serving}


def _kept(jwks: object) -> str:
    try:
        text = json.dumps(key_set(jwks), separators=(",", ":"))
        if len(text) > MAX_KEY_SET_BYTES:
            raise ValueError(f"a key set that is registered has {MAX_KEY_SET_BYTES} bytes at most")
    except ValueError as error:
        raise RegistrationError("invalid_client_metadata", f"jwks: {error}") from error
    return text
