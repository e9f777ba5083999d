"""The messages of the line (docs/contract.md) as the relay sees them: what a client may say, and what it is told.

A client is another machine, perhaps a stolen one: a line that is no message is dropped here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final, Literal

VERSION: Final = 1
LINE_MAX: Final = 16 * 1024
"""Bytes in a message, its newline not counted."""
AGENT: Final = "opencode-relay-agent"

Code = Literal[
    "name-taken",
    "bad-name",
    "bad-port",
    "bad-hello",
    "exposed",
    "not-carrying",
    "write-failed",
    "not-allowed",
    "unavailable",
]

_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_MAX_N: Final = 2**53
"""What every JSON parser can carry."""


class LineRefusal(Exception):
    """What was asked is not done; becomes an `error` message."""

    def __init__(self, code: Code, message: str, *, holder: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.holder = holder


@dataclass(frozen=True, slots=True)
class Hello:
    """Register this. `file` is unvalidated."""

    id: str
    file: dict[str, object]


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer with a fresh health."""

    n: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Try a port without registering. Unvalidated."""

    port: object


@dataclass(frozen=True, slots=True)
class Query:
    """Show the client's own registrations."""


@dataclass(frozen=True, slots=True)
class Bye:
    """Take the registration back; the session is over."""


Message = Hello | Ping | Probe | Query | Bye


def decode(line: bytes) -> Message | None:
    """Return the client's message on this line; None for noise, such as the relay program of a launcher's first line.

    Raises:
        Refusal: a `hello` of another version or shape.
    """
    message: Message | None = None
    fields = _fields(line)
    match fields:
        case {"type": "hello"}:
            message = _hello(fields)
        case {"type": "ping", "n": int(n)} if not isinstance(n, bool) and 0 <= n < _MAX_N:
            message = Ping(n)
        case {"type": "probe", **rest}:
            message = Probe(rest.get("port"))
        case {"type": "query"}:
            message = Query()
        case {"type": "bye"}:
            message = Bye()
    return message


def _fields(line: bytes) -> dict[str, object]:
    if len(line) > LINE_MAX or not line.startswith(b"{"):
        return {}
    try:
        fields: dict[str, object] = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields


def _hello(fields: dict[str, object]) -> Hello:
    if fields.get("v") != VERSION:
        raise LineRefusal("bad-hello", f"this relay speaks version {VERSION} of the line")
    match fields:
        case {"id": str(instance_id), "file": dict(file)} if _ID.fullmatch(instance_id):
            return Hello(instance_id, file)
    raise LineRefusal("bad-hello", "a hello has an id of 32 hex digits and a file")


def encode(**fields: object) -> bytes:
    """Return a message as a line. What is None is left out."""
    present = {key: value for key, value in fields.items() if value is not None}
    return json.dumps(present, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def error(refusal: LineRefusal) -> bytes:
    """Return the message that tells a refusal."""
    return encode(type="error", code=refusal.code, message=str(refusal), holder=refusal.holder)


BEAT: Final = encode(type="pong", n=0, health="unverified")
"""A sign of life that nobody asked for; launchers count their pings from 1."""
