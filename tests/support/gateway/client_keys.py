"""A client's key: its public half as documents publish it, and the assertions that it signs."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class ClientKey:
    """Args: `name` is its `kid`."""

    def __init__(self, name: str = "key-1", algorithm: str = "RS256") -> None:
        self.name = name
        self.algorithm = algorithm
        self._private = (
            rsa.generate_private_key(65537, 2048) if algorithm[0] in "RP" else ec.generate_private_key(ec.SECP256R1())
        )
        public = self._private.public_key()
        self.public_pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.private_pem = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        self.public: dict[str, Any] = self._jwk(public)
        self.private: dict[str, Any] = self._jwk(self._private)

    def key_set(self, *others: ClientKey) -> dict[str, Any]:
        return {"keys": [self.public, *(other.public for other in others)]}

    def assertion(self, client_id: str, audience: object, /, **changed: Any) -> str:
        """Sign for `audience`. A claim that is None is left out; `kid` is of the header."""
        now = int(time.time())
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "iat": now,
            "exp": now + 60,
            "jti": uuid.uuid4().hex,
        }
        kid = changed.pop("kid", self.name)
        claims |= changed
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.PyJWS().encode(
            json.dumps(given).encode(), self._private, self.algorithm, headers={"kid": kid} if kid else None
        )

    def _jwk(self, key: Any) -> dict[str, Any]:
        made = (RSAAlgorithm if self.algorithm[0] in "RP" else ECAlgorithm).to_jwk(key, as_dict=True)
        made.pop("key_ops", None)
        return {**made, "kid": self.name, "use": "sig", "alg": self.algorithm}


def signed(assertion: str) -> dict[str, str]:
    """Return the form's parameters that carry an assertion."""
    return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
