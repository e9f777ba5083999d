"""A webhook: JSON by POST, signed as Standard Webhooks has it, so that receivers find a library that verifies it.

The signature is HMAC-SHA256 over id, timestamp and body. Headers, body and a receiver are in
docs/notifications.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from opencode_notify.errors import BadOutlet
from opencode_notify.network import Address, Network, request
from opencode_notify.settings import SenderSettings, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opencode_notify.notice import Notice, Receipt

VERSION: Final = "1"
"""Of the body."""
_PREFIX: Final = "whsec_"
_MIN_KEY: Final = 24
"""Bytes."""
_GONE: Final = frozenset({410})


class WebhookSettings(SenderSettings):
    """`url` is where to; `secret` is `whsec_` and base64 of at least 24 bytes, as `new_secret` makes it."""

    url: SecretStr
    secret: SecretStr


def new_secret() -> str:
    """Return a secret for a receiver and this outlet."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


class Webhook:
    """An address, and the key that it knows us by. `clock` tells the time as `time.time` does."""

    def __init__(self, address: Address, key: bytes, network: Network, clock: Callable[[], float] = time) -> None:
        self._address = address
        self._key = key
        self._network = network
        self._clock = clock

    async def send(self, notice: Notice) -> Receipt:
        """See `Outlet.send`."""
        body = json.dumps(
            {
                "version": int(VERSION),
                "id": notice.id,
                "type": "notice.withdrawn" if notice.withdrawn else "notice",
                "tag": notice.place,
                "title": notice.title,
                "body": notice.body,
                "priority": notice.priority,
                "url": notice.url,
            }
        ).encode()
        identity = event_id(notice)
        moment = str(int(self._clock()))
        return await request(
            self._network,
            "POST",
            self._address,
            content=body,
            headers={
                "content-type": "application/json",
                "webhook-id": identity,
                "webhook-timestamp": moment,
                "webhook-signature": signature(self._key, identity, moment, body),
                "opencode-relay-version": VERSION,
            },
            gone=_GONE,
        )

    async def withdraw(self, notice: Notice) -> None:
        """See `Outlet.withdraw`."""
        await self.send(replace(notice, withdrawn=True))


def event_id(notice: Notice) -> str:
    """Return the id of what happens to a notice, the same for a repeat, safe in a header."""
    plain = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in notice.id
    )
    if plain != notice.id or len(plain) > 64:
        plain = hashlib.sha256(notice.id.encode()).hexdigest()
    return f"{plain}.withdrawn" if notice.withdrawn else plain


def signature(key: bytes, identity: str, moment: str, body: bytes) -> str:
    """Return `v1,` and the signature in base64."""
    signed = b".".join((identity.encode(), moment.encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def outlet(settings: Mapping[str, object], network: Network) -> Webhook:
    """Return the outlet. Raises `BadOutlet`."""
    given = read(WebhookSettings, settings)
    address = Address.of(given.url.get_secret_value(), "url", allow_private=given.allow_private)
    secret = given.secret.get_secret_value()
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < _MIN_KEY or not secret.startswith(_PREFIX):
        raise BadOutlet(f"secret: must be {_PREFIX} and base64 of at least {_MIN_KEY} random bytes")
    return Webhook(address, key, network)
