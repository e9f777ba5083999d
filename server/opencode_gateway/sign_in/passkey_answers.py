"""What browsers answer when they made or used a passkey: JSON by anybody, read into bounded bytes.

The fields are those of `PublicKeyCredential.toJSON()`.
"""

from __future__ import annotations

import base64
import binascii
from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from webauthn.helpers.structs import (
    AuthenticationCredential,
    AuthenticatorAssertionResponse,
    AuthenticatorAttestationResponse,
    RegistrationCredential,
)

from opencode_common.validation import describe
from opencode_gateway.errors import GatewayError
from opencode_gateway.sign_in.passkey_rows import base64url

MAX_JSON: Final = 16 * 1024
"""Of characters."""
_MAX_CREDENTIAL: Final = 1023
"""As the standard has it."""
_MAX_HANDLE: Final = 64


class Malformed(GatewayError):
    """It is not what a browser answers."""


def _bytes(text: object) -> object:
    if not isinstance(text, str):
        raise ValueError("must be base64url")  # noqa: TRY004 # pydantic collects this kind
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("must be base64url") from None


_Bytes = Annotated[bytes, BeforeValidator(_bytes)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class PasskeyClient(_Part):
    """What the browser says that it had signed, and where."""

    challenge: _Bytes
    cross_origin: Literal[False] = False
    """A page of another site around ours would be told here."""


class _Response(_Part):
    client_data: Annotated[_Bytes, Field(max_length=1024, alias="clientDataJSON")]

    @cached_property
    def client(self) -> PasskeyClient:
        """Read it. Raises `ValidationError`."""
        return PasskeyClient.model_validate_json(self.client_data)


class _Answer(_Part):
    raw_id: Annotated[_Bytes, Field(min_length=1, max_length=_MAX_CREDENTIAL)]
    type: Literal["public-key"]
    response: _Response

    @classmethod
    def read(cls, answer: str) -> Self:
        """Read it. Raises `Malformed`."""
        if len(answer) > MAX_JSON:
            raise Malformed(f"longer than {MAX_JSON:,} characters")
        try:
            read = cls.model_validate_json(answer.encode(errors="replace"))
            _ = read.client
        except ValidationError as error:
            raise Malformed(describe(error)) from None
        return read

    @property
    def client(self) -> PasskeyClient:
        """What the browser says of it."""
        return self.response.client


class _AssertionResponse(_Response):
    authenticator_data: Annotated[_Bytes, Field(max_length=512)]
    signature: Annotated[_Bytes, Field(max_length=512)]
    user_handle: Annotated[_Bytes, Field(max_length=_MAX_HANDLE)] | None = None


class Assertion(_Answer):
    """That a passkey has signed."""

    response: _AssertionResponse

    def credential(self) -> AuthenticationCredential:
        """Return it as the library has it."""
        return AuthenticationCredential(
            id=base64url(self.raw_id),
            raw_id=self.raw_id,
            response=AuthenticatorAssertionResponse(
                client_data_json=self.response.client_data,
                authenticator_data=self.response.authenticator_data,
                signature=self.response.signature,
                user_handle=self.response.user_handle,
            ),
        )


class _AttestationResponse(_Response):
    attestation_object: Annotated[_Bytes, Field(max_length=8192)]
    transports: Annotated[tuple[str, ...], Field(max_length=16)] = ()


class Attestation(_Answer):
    """That a passkey was made."""

    response: _AttestationResponse

    def credential(self) -> RegistrationCredential:
        """Return it as the library has it."""
        return RegistrationCredential(
            id=base64url(self.raw_id),
            raw_id=self.raw_id,
            response=AuthenticatorAttestationResponse(
                client_data_json=self.response.client_data, attestation_object=self.response.attestation_object
            ),
        )
