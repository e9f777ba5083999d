"""What Web Push asks of a sender: RFC 8291 (encryption), on RFC 8188 (aes128gcm), and RFC 8292 (VAPID)."""

from __future__ import annotations

import base64
import os
from time import time
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from joserfc import jwt
from joserfc.jwk import ECKey

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PLAINTEXT: Final = 3_993
"""Bytes: with header, padding's mark and tag they are the 4,096 that every push service takes."""
_RECORD: Final = 4_096
_TOKEN_SECONDS: Final = 12 * 3600
"""Push services refuse more than a day."""


def encrypted(plaintext: bytes, their_point: bytes, their_secret: bytes) -> bytes:
    """Return the body of a push.

    Args:
        plaintext: at most `MAX_PLAINTEXT` bytes.
        their_point: `p256dh` of the subscription, 65 bytes.
        their_secret: `auth` of the subscription, 16 bytes.

    Raises:
        ValueError: too long, or `their_point` is not on the curve.
    """
    if len(plaintext) > MAX_PLAINTEXT:
        raise ValueError(f"a push holds at most {MAX_PLAINTEXT} bytes")
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), their_point)
    ours = ec.generate_private_key(ec.SECP256R1())
    our_point = ours.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = ours.exchange(ec.ECDH(), theirs)
    keying = _derived(shared, their_secret, b"WebPush: info\x00" + their_point + our_point, 32)
    salt = os.urandom(16)
    key = _derived(keying, salt, b"Content-Encoding: aes128gcm\x00", 16)
    nonce = _derived(keying, salt, b"Content-Encoding: nonce\x00", 12)
    header = salt + _RECORD.to_bytes(4, "big") + bytes([len(our_point)]) + our_point
    return header + AESGCM(key).encrypt(nonce, plaintext + b"\x02", None)


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)


def new_vapid_key() -> str:
    """Return a private key as PEM, by which push services know one sender. Another voids all subscriptions."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class Vapid:
    """Says to push services who sends.

    Args:
        pem: the private key; `ValueError` if it is none on the curve P-256.
        contact: `mailto:` or https address for those who run the push service.
        clock: tells the time as `time.time` does.
    """

    def __init__(self, pem: str, contact: str, clock: Callable[[], float] = time) -> None:
        key = load_pem_private_key(pem.encode(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("a VAPID key is on the curve P-256")  # noqa: TRY004 - its value is wrong
        self._key = ECKey.import_key(pem)
        self._point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self._contact = contact
        self._clock = clock

    @property
    def public_key(self) -> str:
        """What a browser needs to subscribe, its `applicationServerKey`: base64url of 65 bytes."""
        return base64.urlsafe_b64encode(self._point).rstrip(b"=").decode()

    def authorization(self, origin: str) -> str:
        """Return the header `Authorization` for the push service at `origin`, as `https://push.example.org`."""
        claims: dict[str, object] = {"aud": origin, "exp": int(self._clock()) + _TOKEN_SECONDS, "sub": self._contact}
        return f"vapid t={jwt.encode({'typ': 'JWT', 'alg': 'ES256'}, claims, self._key)}, k={self.public_key}"
