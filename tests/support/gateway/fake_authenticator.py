"""A device that makes passkeys and signs with them, as the browser of its person hands on; real keys and signatures.

What it says can be bent: where it is, whether it made sure of its person, how often it has signed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class FakeAuthenticator:
    """One device with one passkey."""

    origin: str
    """Of the page that asks."""
    flags: int = PRESENT | VERIFIED
    count: int = 0
    counts: bool = True
    """One whose passkeys are shared among devices does not."""
    credential: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    user_handle: bytes = b""
    site: str = ""
    """That it answers for; empty: the one that it is asked about."""
    client: dict[str, Any] = field(default_factory=dict)
    """What the browser says besides, or instead."""

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def make(self, options: str) -> str:
        """Answer `navigator.credentials.create`."""
        asked = json.loads(options)
        self.user_handle = decoded(asked["user"]["id"])
        data = self._data(asked["rp"]["id"], ATTESTED)
        data += bytes(16) + len(self.credential).to_bytes(2) + self.credential + self._public_key()
        return self._answer(
            clientDataJSON=self._client("webauthn.create", asked["challenge"]),
            attestationObject=cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data}),
            transports=["internal", "of a later standard"],
        )

    def sign(self, options: str) -> str:
        """Answer `navigator.credentials.get`."""
        asked = json.loads(options)
        if self.counts:
            self.count += 1
        data, client = self._data(asked["rpId"]), self._client("webauthn.get", asked["challenge"])
        signature = self._key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        return self._answer(
            clientDataJSON=client, authenticatorData=data, signature=signature, userHandle=self.user_handle
        )

    def _data(self, site: str, more: int = 0) -> bytes:
        site_hash = hashlib.sha256((self.site or site).encode()).digest()
        return site_hash + bytes([self.flags | more]) + self.count.to_bytes(4)

    def _client(self, kind: str, challenge: str) -> bytes:
        said = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps(said | self.client).encode()

    def _public_key(self) -> bytes:
        numbers = self._key.public_key().public_numbers()
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)})

    def _answer(self, **response: Any) -> str:
        said = {name: encoded(value) if isinstance(value, bytes) else value for name, value in response.items()}
        named = encoded(self.credential)
        return json.dumps({"id": named, "rawId": named, "type": "public-key", "response": said})
