"""Web Push: a browser's subscription, which its push service delivers to.

The service worker gets JSON: `id`, `tag`, `title`, `body`, `url`, `priority` and `withdrawn`. It shows the notice
under its tag, or closes it. The endpoint is a secret: whoever has it and the keys can write to that browser.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, SecretStr

from opencode_notify.errors import BadOutlet
from opencode_notify.network import Address, Network, request
from opencode_notify.notice import Receipt
from opencode_notify.settings import SenderSettings, read
from opencode_notify.web_push_crypto import MAX_PLAINTEXT, Vapid, encrypted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opencode_notify.notice import Notice

KEPT_SECONDS: Final = 4 * 3600
"""So long a push service keeps a notice for a browser that is away."""
_MAX_TITLE: Final = 200
"""Characters."""
_GONE: Final = frozenset({404, 410})
_URGENCY: Final = {1: "very-low", 2: "low", 3: "normal", 4: "high", 5: "high"}


class WebPushSettings(SenderSettings):
    """`endpoint`, `p256dh` and `auth` are the subscription's, `vapid_key` a private key as PEM.

    `contact` is `mailto:` or https address of who runs this gateway.
    """

    endpoint: SecretStr
    p256dh: SecretStr
    auth: SecretStr
    vapid_key: SecretStr
    contact: str = Field(pattern=r"^(mailto:[^\s]+@[^\s]+|https://[^\s]+)$")


class WebPush:
    """One browser of a person."""

    def __init__(self, endpoint: Address, point: bytes, secret: bytes, vapid: Vapid, network: Network) -> None:
        self._endpoint = endpoint
        self._point = point
        self._secret = secret
        self._vapid = vapid
        self._network = network

    async def send(self, notice: Notice) -> Receipt:
        """See `Outlet.send`."""
        plaintext = payload(notice)
        if plaintext is None:
            return Receipt.of_failure("the notice's id, tag or address is too long for a push")
        return await request(
            self._network,
            "POST",
            self._endpoint,
            content=encrypted(plaintext, self._point, self._secret),
            headers={
                "authorization": self._vapid.authorization(self._endpoint.origin),
                "content-encoding": "aes128gcm",
                "content-type": "application/octet-stream",
                "topic": topic(notice),
                "ttl": str(KEPT_SECONDS),
                "urgency": _URGENCY[notice.priority],
            },
            gone=_GONE,
        )

    async def withdraw(self, notice: Notice) -> None:
        """See `Outlet.withdraw`."""
        await self.send(replace(notice, withdrawn=True))


def topic(notice: Notice) -> str:
    """Return the 32 characters by which a push service replaces a notice that it still keeps."""
    return base64.urlsafe_b64encode(hashlib.sha256(notice.place.encode()).digest()[:24]).decode()


def payload(notice: Notice) -> bytes | None:
    """Return what the worker gets, its body cut so that it fits; nothing if it cannot be made to fit."""
    body = notice.body
    while True:
        told = {
            "id": notice.id,
            "tag": notice.place,
            "title": notice.title[:_MAX_TITLE],
            "body": body,
            "url": notice.url,
            "priority": notice.priority,
            "withdrawn": notice.withdrawn,
        }
        plaintext = json.dumps(told, ensure_ascii=False).encode(errors="replace")
        excess = len(plaintext) - MAX_PLAINTEXT
        if excess <= 0:
            return plaintext
        if body in {"", "…"}:
            return None
        # A character is up to six bytes: the text gets shorter until it fits, and no shorter than it must by much.
        body = body[: max(len(body) - max(excess // 6, 1) - 1, 0)] + "…"


def outlet(settings: Mapping[str, object], network: Network) -> WebPush:
    """Return the outlet. Raises `BadOutlet`."""
    given = read(WebPushSettings, settings)
    endpoint = Address.of(given.endpoint.get_secret_value(), "endpoint", allow_private=given.allow_private)
    point = _bytes(given.p256dh.get_secret_value())
    secret = _bytes(given.auth.get_secret_value())
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise BadOutlet("p256dh: is no key of a subscription: subscribe anew") from None
    if len(point) != 65:
        raise BadOutlet("p256dh: is no key of a subscription: subscribe anew")
    if len(secret) != 16:
        raise BadOutlet("auth: is no secret of a subscription: subscribe anew")
    try:
        vapid = Vapid(given.vapid_key.get_secret_value(), given.contact)
    except (ValueError, TypeError):
        raise BadOutlet("vapid_key: must be a private key on the curve P-256, as PEM") from None
    return WebPush(endpoint, point, secret, vapid, network)


def _bytes(text: str) -> bytes:
    """Return what base64url stands for, with or without its padding; nothing if it is none."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
