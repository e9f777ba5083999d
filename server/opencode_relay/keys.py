"""Public keys of clients: which kinds are taken, and their fingerprints."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

from opencode_relay.errors import EnrolmentError

_MAX_CHARACTERS: Final = 8192
_MIN_RSA_BITS: Final = 3072
_FIELDS: Final = {
    "ssh-ed25519": 2,
    "ssh-rsa": 3,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
"""Kind to the number of length-prefixed fields in its blob, its own name included."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One public key."""

    kind: str
    blob: str
    """Base64."""

    @property
    def fingerprint(self) -> str:
        """As ssh shows it: `SHA256:` and 43 characters."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    def __str__(self) -> str:
        """Return it as authorized_keys has it, without a comment."""
        return f"{self.kind} {self.blob}"


def parse_key(text: str) -> PublicKey:
    """Read one line of a `.pub` file; its comment is dropped.

    Raises:
        EnrolmentError: it is no such line, or a key that is not taken; the text says which, for after "the key ".
    """
    words = text.split(" ")
    if len(text) > _MAX_CHARACTERS or not text.isprintable() or len(words) < 2:
        raise EnrolmentError("is no public key")
    kind, blob = words[:2]
    if kind not in _FIELDS:
        raise EnrolmentError(
            f"must begin with one of {', '.join(_FIELDS)}; options, certificates and other kinds are not taken"
        )
    try:
        fields = _fields(base64.b64decode(blob, validate=True))
    except (binascii.Error, ValueError):
        fields = []
    if len(fields) != _FIELDS[kind] or fields[0] != kind.encode():
        raise EnrolmentError("is damaged")
    _check_strength(kind, fields)
    return PublicKey(kind, blob)


def _check_strength(kind: str, fields: list[bytes]) -> None:
    if kind == "ssh-ed25519" and len(fields[1]) != 32:
        raise EnrolmentError("is damaged")
    bits = int.from_bytes(fields[2]).bit_length() if kind == "ssh-rsa" else _MIN_RSA_BITS
    if bits < _MIN_RSA_BITS:
        raise EnrolmentError(
            f"is RSA of {bits} bits, at least {_MIN_RSA_BITS} are needed; better make an ed25519 key"
        )


def _fields(blob: bytes) -> list[bytes]:
    fields = []
    while blob:
        size = int.from_bytes(blob[:4])
        if len(blob) < 4 + size:
            raise ValueError("cut short")
        fields.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    return fields
