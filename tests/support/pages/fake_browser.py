"""A browser that a push service delivers to: a subscription with its keys, and what it makes of a push."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import http_ece  # type: ignore[import-untyped]  # has no types
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from support.pages.fake_receiver import Received, Receiver


def text(value: bytes) -> str:
    """Return bytes as browsers write them."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


class FakeBrowser:
    """One subscription."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.secret = os.urandom(16)

    def subscription(self, server: Receiver, path: str = "/push/very-secret") -> dict[str, str]:
        """Return what it tells a page when this server is its push service."""
        return {"endpoint": server.url() + path, "p256dh": text(self.point), "auth": text(self.secret)}

    def opened(self, body: bytes) -> bytes:
        """Decrypt a push."""
        plain: bytes = http_ece.decrypt(body, private_key=self._key, auth_secret=self.secret, version="aes128gcm")
        return plain

    def read(self, got: Received) -> dict[str, Any]:
        """Return what its service worker gets."""
        told: dict[str, Any] = json.loads(self.opened(got.body))
        return told
