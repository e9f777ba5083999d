"""Registrations that nobody has consented to yet: each is carried by its client, in its own id, and signed by us.

Nothing is stored for a stranger, so there is nothing that strangers can fill, and no place that the owner's client
could lose (RFC 7591, appendix A.5.2, "stateless client registration"). With the first consent the client gets a row.

What is signed is that row: the columns of `clients` in `COLUMNS`. Whoever adds a column of what a client registers
adds it there, and `OAuthClients` reads it from both alike.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from itsdangerous import BadSignature, TimestampSigner, URLSafeTimedSerializer

from opencode_gateway.oauth.requests import MAX_REGISTERED_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COLUMNS: Final = (
    "name",
    "document",
    "redirect_uris",
    "let_in_as",
    "auth_method",
    "secret_hash",
    "jwks",
    "jwks_uri",
)
"""Of a client's row. An id that lacks one, as an earlier version made it, is none: its client registers anew."""
_NONCE_BYTES: Final = 9
_ID: Final = re.compile(r"\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{27}")
"""What was signed, when, and the signature."""
_LONG: Final = 80
_DIGITS: Final = 12


class Registrations:
    """Signs registrations and reads them back.

    Args:
        key: the service's own; see `requests.signing_key`.
        clock: seconds since the epoch.
    """

    def __init__(self, key: bytes, *, clock: Callable[[], float] = time.time) -> None:
        class Signer(TimestampSigner):
            def get_timestamp(self) -> int:
                return int(clock())

        self._serializer = URLSafeTimedSerializer(key, salt="client-registration", signer=Signer)

    def sign(self, row: Mapping[str, Any]) -> str | None:
        """Return the id of a client that registers, some 150 characters; None if it would be too long."""
        values = [row[column] for column in COLUMNS]
        signed = str(self._serializer.dumps([secrets.token_urlsafe(_NONCE_BYTES), *values]))
        return signed if len(signed) <= MAX_REGISTERED_ID else None

    def read(self, client_id: str, *, seconds: float) -> tuple[dict[str, Any], float] | None:
        """Return the row that was signed, and when; None if it was not signed here, was changed, or is too old.

        Args:
            client_id: any text.
            seconds: since it was signed, at most.
        """
        if len(client_id) > MAX_REGISTERED_ID or not self._is_as_signed(client_id):
            return None
        try:
            (_, *values), signed_at = self._serializer.loads(client_id, max_age=int(seconds), return_timestamp=True)
        except BadSignature:
            return None
        if len(values) != len(COLUMNS):
            return None
        return dict(zip(COLUMNS, values, strict=True)), signed_at.timestamp()

    def _is_as_signed(self, client_id: str) -> bool:
        """Tell whether an id ends in its signature as we write it, which has more than one spelling in base64.

        A client that is revoked under one must not come back under another.
        """
        signed, _, signature = client_id.rpartition(".")
        ours = self._serializer.make_signer(self._serializer.salt).get_signature(signed.encode(errors="replace"))
        return hmac.compare_digest(signature.encode(errors="replace"), ours)


def is_whole(client_id: str) -> bool:
    """Tell whether this has the form of a client's id that carries itself, and no part of it is missing."""
    return len(client_id) <= MAX_REGISTERED_ID and _ID.fullmatch(client_id) is not None


def shown_id(client_id: str) -> str:
    """Return an id as lists have it, which commands take as well: long ones would fill the screen."""
    if len(client_id) <= _LONG or client_id.startswith("https://"):
        return client_id
    return f"client-{hashlib.sha256(client_id.encode()).hexdigest()[:_DIGITS]}"
