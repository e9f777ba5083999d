"""The registration of one OpenCode instance: what the registry file says (docs/contract.md)."""

import json
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from opencode_connected.names import validate_name
from opencode_connected.text import as_utf8


def now_utc() -> str:
    """Return the present time as the contract writes it, such as ``2026-11-24T16:00:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _checked_name(name: str) -> str:
    validate_name(name)
    return name


def _as_utf8(value: object) -> object:
    return as_utf8(value) if isinstance(value, str) else value


Name = Annotated[str, AfterValidator(_checked_name)]
"""A name that follows the contract."""
Port = Annotated[int, Field(ge=1024, le=65535, strict=True)]
"""A TCP port that needs no privilege."""


class OwnRegistration(BaseModel):
    """One instance.

    In Python the fields are ``local_port`` and ``connected_at``, in JSON ``localPort`` and ``connectedAt``.

    Attributes:
        name: the instance's name, valid by `names.validate_name`.
        hostname: of the machine that OpenCode runs on.
        port: where a reader of the file reaches OpenCode on 127.0.0.1.
        local_port: OpenCode's port on its own machine.
        cwd: the directory that OpenCode was started in; bytes that are no UTF-8 become U+FFFD.
        connected_at: ISO 8601 in UTC, see `now_utc`.

    """

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)

    name: Name
    hostname: Annotated[str, BeforeValidator(_as_utf8), Field(min_length=1, max_length=255)]
    port: Port
    local_port: Port
    cwd: Annotated[str, BeforeValidator(_as_utf8), Field(min_length=1, max_length=4096)]
    connected_at: Annotated[str, Field(max_length=40)]

    def to_json(self) -> str:
        """Return the registration file's content: one line, no newline at its end."""
        return _compact(self.model_dump(by_alias=True))

    def closed_json(self) -> str:
        """Return the goodbye note: the same, with ``closedAt`` set to now."""
        return _compact({**self.model_dump(by_alias=True), "closedAt": now_utc()})


def _compact(fields: dict[str, object]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
