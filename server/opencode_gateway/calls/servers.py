"""`servers.json`: the MCP servers behind the gateway, each a child on standard input and output.

Two forms are read. The flat one, and the wrapper that most MCP clients write:

{"opencode": {"transport": "stdio", "command": "opencode-mcp", "env_keys": ["RELAY_REGISTRY_DIR"], "tools": "*"}}
{"mcpServers": {"opencode": {"command": "opencode-mcp", "env": {"RELAY_REGISTRY_DIR": "/var/lib/opencode-relay"}}}}
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, field_validator
from pydantic_core import PydanticCustomError, from_json

from opencode_common.validation import describe
from opencode_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

OPENCODE: Final = "opencode"
"""The server whose tools keep their own names, whatever else is served."""
OPENCODE_COMMAND: Final = "opencode-mcp"
OPENCODE_VARIABLES: Final = (
    "RELAY_REGISTRY_DIR",
    "RELAY_CREDENTIALS_FILE",
    "RELAY_PORT_RANGE",
    "RELAY_STATE_DIR",
    "RELAY_JOURNAL_DAYS",
    "DISCOVERY_INTERVAL_MS",
    "HEALTH_CHECK_TIMEOUT_MS",
    "SEND_TIMEOUT_MS",
    "TRANSPORT",
    "LOG_LEVEL",
)
"""What the OpenCode server of the default takes from the gateway's environment."""
SILENT_SECONDS: Final = 10.0
"""opencode-mcp is never busy for so long; clients and people still wait then."""
INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""Every child has these; they hold no secrets."""
_CALLERS: Final = "RELAY_CALLERS"
_TOLD: Final = "told"
"""Who is started with that believes what `callers` says."""
_OWN_PREFIXES: Final = ("GATEWAY_", "FASTMCP_")
"""The gateway's own variables are no child's business."""

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,39}$")]
_Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,199}$")]
_Word = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=10_000)]


class Server(BaseModel):
    """One entry of `servers.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: Annotated[_Word, StringConstraints(min_length=1)]
    args: tuple[_Word, ...] = ()
    transport: Literal["stdio"] = "stdio"
    type: Literal["stdio"] = "stdio"
    """As some programs call `transport`."""
    env: dict[_Variable, _Word] = Field(default_factory=dict)
    env_keys: tuple[_Variable, ...] = ()
    """Variables that are copied from the gateway's environment, as far as they are set there."""
    cwd: Annotated[_Word, StringConstraints(min_length=1)] | None = None
    tools: Literal["*"] | tuple[str, ...] = "*"
    """Tools that are served at all, by the names that the server itself gives them."""
    silent_seconds: Annotated[float, Field(ge=1, le=3600)] = SILENT_SECONDS
    """It is started anew if it answers not even a ping for so long. Raise it for a server that its tools block."""

    @field_validator("tools", mode="before")
    @classmethod
    def _all_or_some(cls, tools: object) -> object:
        if tools != "*" and not isinstance(tools, list | tuple):
            raise ValueError('must be "*", or a list of names')
        return tools

    def is_told_callers(self, name: str) -> bool:
        """Tell whether the server, by this name, believes what `callers` says of each call."""
        return self.env.get(_CALLERS, _TOLD if self.is_ours(name) else "") == _TOLD

    def is_ours(self, name: str) -> bool:
        """Tell whether the server, by this name, is an OpenCode server."""
        return name == OPENCODE or self._is_opencode

    @property
    def _is_opencode(self) -> bool:
        return Path(self.command).name == OPENCODE_COMMAND

    def environment(self, name: str, environ: Mapping[str, str], tool_timeout: float) -> dict[str, str]:
        """Return the child's whole environment.

        Args:
            name: of this entry.
            environ: the gateway's own.
            tool_timeout: in seconds.
        """
        found = {name: environ[name] for name in INHERITED if name in environ}
        if self._is_opencode:
            # It then ends its calls itself, with an answer that says what goes on.
            found["SEND_TIMEOUT_MS"] = str(max(1000, int(tool_timeout * 1000)))
        if self.is_told_callers(name):
            found[_CALLERS] = _TOLD
        found |= {name: environ[name] for name in self.env_keys if name in environ}
        return found | self.env

    def with_variables(self, variables: Mapping[str, str]) -> Server:
        """Return the server with some more in `env`, as far as they are not set there."""
        return self.model_copy(update={"env": {**variables, **self.env}})


Servers = dict[_Name, Server]
_SERVERS: Final[TypeAdapter[Servers]] = TypeAdapter(Annotated[Servers, Field(min_length=1)])


def default_servers() -> Servers:
    """Return what is served without a file: the OpenCode server alone."""
    return {OPENCODE: Server(command=OPENCODE_COMMAND, env_keys=OPENCODE_VARIABLES)}


def load_servers(path: Path | None) -> Servers:
    """Read `servers.json`; without a path, return the default.

    Raises:
        ConfigError: the file is missing or wrong, said in one line with the key's path.
    """
    if path is None:
        return default_servers()
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: write it, or leave `servers_file` out of gateway.json") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error)}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _parse(content: bytes) -> Servers:
    entries: Any = from_json(content)
    # A flat file may have a server of that name: an entry has a command.
    if (
        isinstance(entries, dict)
        and isinstance(wrapped := entries.get("mcpServers"), dict)
        and "command" not in wrapped
    ):
        if len(entries) > 1:
            other = next(key for key in entries if key != "mcpServers")
            raise ValueError(f"{other[:80]}: stands beside `mcpServers`; servers belong inside it")
        found = _validated(entries["mcpServers"], ("mcpServers",))
    else:
        found = _validated(entries, ())
    for name, server in found.items():
        for index, variable in enumerate(server.env_keys):
            if variable.startswith(_OWN_PREFIXES):
                raise ValueError(
                    f"{name}.env_keys.{index}: {variable} is the gateway's own, and is passed to no server"
                )
    return found


def _validated(entries: object, prefix: tuple[str, ...]) -> Servers:
    try:
        return _SERVERS.validate_python(entries)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = tuple(part for part in first["loc"] if part != "[key]")
        known = PydanticCustomError("servers", "{told}", {"told": _told(first)})
        raise ValidationError.from_exception_data(
            "servers", [{"type": known, "loc": (*prefix, *where), "input": None}]
        ) from None


def _told(problem: Any) -> str:
    if "[key]" in problem["loc"] and len(problem["loc"]) <= 3 and problem["type"] == "string_pattern_mismatch":
        return "a name has letters, digits and '-' only, 40 at most"
    return str(problem["msg"])
