"""The join line (docs/contract.md): what a relay's administrator hands to whoever enrolls a machine there.

It comes through mail or chat, so it is validated as hostile: none of its words can become an option of ssh.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from opencode_connected import updating
from opencode_connected.errors import UsageError
from opencode_connected.names import CLIENT_NAME

PREFIX: Final = "ocr1:"
_LINE: Final = re.compile(rf"{PREFIX}([A-Za-z0-9_-]+)")
_OTHER_VERSION: Final = re.compile(r"ocr(?!1:)\d+:")
_MAX_CHARACTERS: Final = 4096
_NOT_COMPLETE: Final = (
    f"the join line is not complete: copy all of it, from {PREFIX} to its end, as the relay printed it"
)


_HOST: Final = r"^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)$"
_KEY: Final = r"^(?:ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa) [A-Za-z0-9+/]{40,}={0,2}$"


def _checked_host(host: str) -> str:
    if ":" in host:
        ipaddress.IPv6Address(host)
    return host


def _checked_key(key: str) -> str:
    kind, _, encoded = key.partition(" ")
    blob = base64.b64decode(encoded, validate=True)
    # The key itself names its kind once more, behind a length of four bytes.
    if not blob.startswith(len(kind).to_bytes(4) + kind.encode()):
        raise ValueError("the key is of another kind than it says")
    return key


def _checked_ports(ports: str) -> str:
    first, last = map(int, ports.split("-"))
    if not 1024 <= first <= last <= 65535:
        raise ValueError("the ports must be FIRST-LAST within 1024-65535")
    return ports


class JoinLine(BaseModel):
    """Where this machine's tunnels go.

    Attributes:
        host: a name or an address of the relay.
        port: its sshd's.
        user: whom to log in as there.
        host_key: what the relay proves itself with, ``KIND BASE64``.
        client: the name by which the relay's inventory knows this machine.
        ports: FIRST-LAST, the block of the relay's ports that is this client's.

    """

    model_config = ConfigDict(frozen=True, strict=True, alias_generator=to_camel)

    host: Annotated[str, Field(max_length=253, pattern=_HOST), AfterValidator(_checked_host)]
    port: Annotated[int, Field(ge=1, le=65535)]
    user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
    host_key: Annotated[str, Field(max_length=2048, pattern=_KEY), AfterValidator(_checked_key)]
    client: Annotated[str, Field(pattern=CLIENT_NAME)]
    ports: Annotated[str, Field(pattern=r"^[1-9][0-9]{3,4}-[1-9][0-9]{3,4}$"), AfterValidator(_checked_ports)]


def parse_join_line(line: str) -> JoinLine:
    """Return what a join line says.

    Raises:
        UsageError: it is none; the error tells what to do about it.

    """
    line = line.strip()
    if _OTHER_VERSION.match(line):
        raise UsageError(f"the join line is of another version: {updating.HERE}")
    if not line.startswith(PREFIX):
        raise UsageError(f"that is no join line: it begins with {PREFIX} and is what the relay's playbook printed")
    match = _LINE.fullmatch(line) if len(line) <= _MAX_CHARACTERS else None
    if match is None:
        raise UsageError(_NOT_COMPLETE)
    try:
        content = base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4))
        return JoinLine.model_validate_json(content)
    except (binascii.Error, ValueError) as error:
        detail = _first_problem(error) if isinstance(error, ValidationError) else ""
        raise UsageError(_NOT_COMPLETE + detail) from error


def _first_problem(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.errors()[0]["loc"])
    return f" ({where} cannot be that)" if where else ""
