"""The messages of the line (docs/contract.md): what the launcher sends, and what it accepts from a relay.

A relay is another machine: a line that is too long, no JSON, of an unknown type or of the wrong shape is dropped
here, and nothing above sees it.
"""

import json
import shlex
from importlib.resources import files
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from opencode_connected.registration import Name, OwnRegistration, Port
from opencode_connected.text import printable

VERSION: Final = 1
LINE_MAX: Final = 16 * 1024
"""Bytes in a message, its newline not counted."""
_BEGINNING: Final = b'{"type":'
"""Of every message of a relay."""
BEAT: Final = 0
"""The number of a pong that nobody asked for, the relay's sign of life. Pings begin at 1: old launchers ignore it."""

Health = Literal["ok", "failed", "unverified"]
ErrorCode = Literal[
    "name-taken",
    "bad-name",
    "bad-port",
    "bad-hello",
    "bad-directory",
    "exposed",
    "not-carrying",
    "write-failed",
    "not-allowed",
    "unavailable",
]


Text = Annotated[str, AfterValidator(printable)]
"""For a person's eyes: one line that no terminal acts upon."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Ready(_Message):
    """The relay speaks. ``ports``: the free ones of this client's own block, None where any port will do."""

    type: Literal["ready"]
    v: int
    agent: Text
    client: Text | None = None
    peer: Text | None = None
    ports: Annotated[tuple[Port, ...], Field(max_length=1024, strict=False)] | None = None


class RegisteredReply(_Message):
    """The registration is written, under ``name``."""

    type: Literal["registered"]
    name: Name
    health: Health


class Pong(_Message):
    """The answer to ping ``n``; ``health`` is a fresh probe of OpenCode through the tunnel."""

    type: Literal["pong"]
    n: int
    health: Health


class RegistrationSeen(_Message):
    """One registration of this account, as the relay's file has it: unvalidated."""

    type: Literal["registration"]
    file: dict[str, object]


class End(_Message):
    """The answer to a query is complete."""

    type: Literal["end"]


class Probed(_Message):
    """The answer to a probe of ``port``."""

    type: Literal["probed"]
    port: Port
    health: Health


class RefusalReply(_Message):
    """The relay did not do what it was asked. ``holder``: who has the name, for ``name-taken``."""

    type: Literal["error"]
    code: ErrorCode
    message: Text
    holder: Text | None = None


RelayMessage = Ready | RegisteredReply | Pong | RegistrationSeen | End | Probed | RefusalReply
_ADAPTER: Final[TypeAdapter[RelayMessage]] = TypeAdapter(Annotated[RelayMessage, Field(discriminator="type")])


def decode(line: bytes) -> RelayMessage | None:
    """Return the relay's message on this line, or None for noise: banners, unknown types, anything malformed."""
    if len(line) > LINE_MAX or not line.startswith(b"{"):
        return None
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError:
        return None


def decode_first(line: bytes) -> tuple[RelayMessage | None, bytes]:
    """Return the relay's first message, and what a startup file printed before it without a newline."""
    before, beginning, rest = line.partition(_BEGINNING)
    return decode(beginning + rest), before


def _line(**fields: object) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def hello(instance_id: str, registration: OwnRegistration) -> bytes:
    """Return the request to register. ``instance_id``: 32 hex digits, constant for the launcher's life.

    Raises:
        ValueError: the registration is too long for one message.

    """
    # A relay side in sh copies the file as it stands here and finds its parts by their order: keep both.
    file = registration.model_dump(by_alias=True)
    message = _line(type="hello", v=VERSION, id=instance_id, file=file)
    if len(message) > LINE_MAX:
        raise ValueError(
            f"the registration is {len(message)} bytes long, {LINE_MAX} are allowed; is the directory's path so long?"
        )
    return message


def ping(n: int) -> bytes:
    """Return the n-th ping of a connection."""
    return _line(type="ping", n=n)


def probe(port: int) -> bytes:
    """Return the request to try the relay's ``port`` without registering."""
    return _line(type="probe", port=port)


BYE: Final = _line(type="bye")
QUERY: Final = _line(type="query")


def loader(nonce: str) -> str:
    """Return the remote command that asks for the relay program and becomes it, on any shell account.

    ``nonce``: 32 hex digits. No single quote, backslash, newline or `!` is inside its quotes, so that sh, bash, zsh,
    fish and csh pass it on alike. The first `echo` ends a line that a startup file left open.
    """
    one, two = nonce[:16], nonce[16:]
    return f"""exec sh -c 'r={one}; echo; echo "$r-{two}"; IFS= read -r p && eval "$(printf %b "$p")"'"""


def asks_for_program(line: bytes, nonce: str) -> bool:
    """Tell whether the command of `loader` runs: what only repeats it (a log, `cat`) has the halves apart."""
    return line.rstrip(b"\r").endswith(f"{nonce[:16]}-{nonce[16:]}".encode())


def program(registry_dir: str, provisioned_mark: str | None = None) -> bytes:
    """Return the relay program as the one line that the command of `loader` asks for.

    ``registry_dir`` is a path on the relay; a relative one, or one behind ``~/``, starts at the account's home.
    Where there is a file ``provisioned_mark``, the program refuses to register.
    """
    source = files("opencode_connected.line").joinpath("relay.sh").read_text("utf-8")
    lines = (line.strip() for line in source.splitlines())
    # Quotes and the escapes of `printf %b` make any path safe; a trailing slash would hide a symbolic link.
    directory = shlex.quote(registry_dir.removeprefix("~/").rstrip("/") or "/")
    parameters = f"dir={directory} mark={shlex.quote(provisioned_mark or '')}"
    text = "\n".join([parameters, *(line for line in lines if line and not line.startswith("#"))])
    return text.replace("\\", "\\\\").replace("\n", "\\n").encode("utf-8", "surrogateescape") + b"\n"


class LineSplitter:
    """Cuts a stream into lines of at most `LINE_MAX` bytes. A longer one is dropped whole, and costs no memory."""

    def __init__(self) -> None:
        self._rest = b""
        self._dropping = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without their newlines."""
        *complete, rest = data.split(b"\n")
        lines = []
        for line in complete:
            if not self._dropping and len(self._rest) + len(line) <= LINE_MAX:
                lines.append(self._rest + line)
            self._rest, self._dropping = b"", False
        self._dropping = self._dropping or len(self._rest) + len(rest) > LINE_MAX
        self._rest = b"" if self._dropping else self._rest + rest
        return lines
