"""The gateway's settings: `gateway.json`, written by whoever provisions the relay and only read here.

{"public_url":"https://relay.example.org","listen":"127.0.0.1:8790","data_dir":"/var/lib/opencode-gateway"}

Everything else has a default. Secrets are never in it: it names the files that hold them.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from opencode_common.validation import describe
from opencode_gateway.capabilities import CAPABILITIES, DEFAULT_TOOLS, Capability
from opencode_gateway.errors import ConfigError
from opencode_gateway.oauth.known_clients import ENTRIES, known_client, owners_of

DEFAULT_PATH: Final = Path("/etc/opencode-gateway/gateway.json")
MCP_PATH: Final = "/mcp"
UPLOAD_PATH: Final = "/upload"
"""Behind it the secret of a link on which a person uploads one file."""
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
"""As browsers write one."""
_NETLOC: Final = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,180}")
"""What the OpenCode server takes as an address of pages: it must know that there is one to decide on."""
_LISTEN: Final = re.compile(r"(127\.0\.0\.1|\[::1\]):[0-9]{1,5}")
_HOST: Final = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?")

_Capabilities = Annotated[tuple[Capability, ...], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PasswordSignIn(_Part):
    """People log in at the gateway itself."""

    mode: Literal["password"] = "password"
    users_file: Path | None = None
    """Names and hashes, see `users.py`; None: `users.json` in the data directory."""


class ProviderSignIn(_Part):
    """People log in at an identity provider. Who is not in `users` is refused, whatever the provider says."""

    mode: Literal["github", "google", "oidc"]
    client_id: str
    client_secret_file: Path
    issuer: str | None = None
    """Of `oidc` alone: where `.well-known/openid-configuration` is found."""
    users: Annotated[dict[str, _Capabilities], Field(min_length=1)]
    """By verified e-mail address, in lower case: what each may do at most."""

    @model_validator(mode="after")
    def _issuer_belongs_to_oidc(self) -> Self:
        if (self.issuer is not None) != (self.mode == "oidc"):
            raise ValueError("`issuer` is needed for mode oidc, and for no other")
        if self.issuer is not None and not self.issuer.startswith("https://"):
            raise ValueError("`issuer` must be https://…")
        return self


class ClientSettings(_Part):
    """Which OAuth clients may be admitted at all. What commands switch on counts besides: see `oauth.redirects`."""

    known: tuple[str, ...] = ()
    """Clients of `oauth/known_clients.toml` by name, as `vscode` or `librechat@chat.example.org`."""
    redirect_uris: tuple[str, ...] | None = None
    """Exact, in place of those of the known clients that are on by default, which are Claude and ChatGPT."""
    loopback_redirects: bool = False
    """Also `http://127.0.0.1:PORT/…`, and the same at `[::1]` and `localhost`, for programs on one's own machine."""
    client_id_hosts: tuple[str, ...] | None = None
    """Hosts whose client-id metadata documents are fetched, in place of those of Claude and ChatGPT."""
    enrolment: Literal["window", "open"] = "window"
    """`window`: a new client is admitted only in a window that `opencode-gateway clients allow` opens."""
    origins: tuple[str, ...] = ()
    """Of clients that are web pages, as `https://chat.example.org`: their pages may register, get tokens and call."""

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin: write SCHEME://HOST[:PORT], without a wildcard")
        return origins

    @field_validator("*")
    @classmethod
    def _no_wildcard(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, tuple):
            starred = next((text for text in value if isinstance(text, str) and "*" in text), None)
            if starred is not None:
                instead = _instead(starred, str(info.field_name))
                raise ValueError(f"wildcards are not taken, as in {starred!r}: {instead}")
        return value

    @field_validator("redirect_uris")
    @classmethod
    def _are_uris(cls, uris: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for uri in uris or ():
            try:
                AnyUrl(uri)
            except ValidationError:
                raise ValueError(f"{uri!r} is no address: write it out, as https://chat.example.org/cb") from None
        return uris

    @field_validator("client_id_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for host in hosts or ():
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is no host: write HOST or HOST:PORT, in lower case")
        return hosts

    @field_validator("known")
    @classmethod
    def _all_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(known_client(name)) for name in names))


def _instead(wildcard: str, field: str) -> str:
    """Say what to write in place of `wildcard` in a field of `ClientSettings`."""
    if field == "known":
        return f"name each client; there are {', '.join(ENTRIES)}"
    if field != "redirect_uris":
        return f"write each of them out, or name its client in `known`, one of {', '.join(ENTRIES)}"
    if wildcard.startswith(("http://127.0.0.1", "http://localhost", "http://[::1]")):
        return (
            "`loopback_redirects` allows every port, and a name in `known`, such as claude-code, those of that client"
        )
    if "*" in _host(wildcard):
        owners = []
    else:
        owners = [str(owner) for owner in owners_of(wildcard.replace("*", "x"))]
        owners = owners or [name for name, entry in ENTRIES.items() if _host(wildcard) in map(_host, entry.https)]
    listed = ", ".join(owners or ENTRIES)
    named = f"name its client in `known`, {'which is' if len(owners) == 1 else 'one of'} {listed}"
    return f"write the exact address, or {named}"


def _host(address: str) -> str:
    return address.partition("://")[2].partition("/")[0]


class Audit(_Part):
    """The audit log: one JSON line per tool call."""

    file: Path | None = None
    """None: standard output, which nothing else is written to."""
    messages: bool = False
    """Also the arguments and answers of calls, which hold people's conversations."""
    max_bytes: Annotated[int, Field(ge=100_000)] = 10_000_000
    keep: Annotated[int, Field(ge=1, le=1000)] = 10
    """Of a file alone: rotated at `max_bytes`, of which so many are kept."""


class Configuration(_Part):
    """What `gateway.json` says, validated."""

    public_url: str
    """What chat clients are given, without a path: `https://relay.example.org`. Plain http on loopback alone."""
    listen: str = "127.0.0.1:8790"
    """Port 0 takes a free one."""
    behind_proxy: bool = False
    """A front of ours on this host: its X-Forwarded-For is believed, nobody else's."""
    data_dir: Path = Path("/var/lib/opencode-gateway")
    servers_file: Path | None = None
    """None: the OpenCode server alone."""
    sign_in: Annotated[PasswordSignIn | ProviderSignIn, Field(discriminator="mode")] = PasswordSignIn()
    clients: ClientSettings = ClientSettings()
    capabilities: dict[Capability, tuple[str, ...]] = Field(default_factory=lambda: dict(DEFAULT_TOOLS))
    """Tools by the capability that they need. A tool that is in none is nobody's."""
    audit: Audit = Audit()
    approvals: Literal["anywhere", "page"] = "anywhere"
    """`page`: asks are decided on the relay's own pages alone. Chat clients and tokens of machines get the link."""
    passkey_for: tuple[Literal["once", "always"], ...] = ()
    """Decisions that take a passkey, and so the page. `once` takes one only where all is decided there."""
    tool_timeout_seconds: Annotated[float, Field(gt=0)] = 45.0
    """Chat clients cut a call at about 60 s."""

    @field_validator("public_url")
    @classmethod
    def _is_an_origin(cls, url: str) -> str:
        parts = urlsplit(url)
        local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
        if parts.scheme not in ({"http", "https"} if local else {"https"}) or not parts.hostname:
            raise ValueError("must be https://HOST, or http on loopback")
        if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
            raise ValueError("must have no path, query or user")
        if not _NETLOC.fullmatch(parts.netloc):
            raise ValueError("must be a plain host: write an international name as xn--…")
        return f"{parts.scheme}://{parts.netloc.lower()}"

    @field_validator("listen")
    @classmethod
    def _is_loopback(cls, address: str) -> str:
        if not _LISTEN.fullmatch(address):
            raise ValueError("must be 127.0.0.1:PORT or [::1]:PORT: a proxy on this host answers from outside")
        return address

    @field_validator("capabilities")
    @classmethod
    def _all_known(cls, tools: dict[Capability, tuple[str, ...]]) -> dict[Capability, tuple[str, ...]]:
        return {capability: tools.get(capability, ()) for capability in CAPABILITIES}

    @model_validator(mode="after")
    def _passkeys_have_a_page(self) -> Self:
        if "once" in self.passkey_for and (self.approvals != "page" or "always" not in self.passkey_for):
            raise ValueError("`passkey_for` with `once` needs `always` in it, too, and `approvals` to be `page`")
        return self

    @property
    def tools(self) -> dict[Capability, tuple[str, ...]]:
        """Tools by the capability that they need, where approvals are on the page with `reply` for `drive` as well.

        It decides nothing then, and who drives waits with it for the decision.
        """
        deciding = tuple(name for name in DEFAULT_TOOLS["approve"] if name in self.capabilities["approve"])
        if self.approvals != "page":
            return self.capabilities
        drive = self.capabilities["drive"]
        return {**self.capabilities, "drive": (*drive, *(name for name in deciding if name not in drive))}

    @property
    def resource(self) -> str:
        """The URL that people paste into their chat client, and that tokens are bound to."""
        return self.public_url + MCP_PATH


def is_named(public_url: str) -> bool:
    """Tell whether it has a name, as passkeys need one, and no address of numbers."""
    try:
        ipaddress.ip_address(urlsplit(public_url).hostname or "")
    except ValueError:
        return True
    return False


def load_configuration(path: Path) -> Configuration:
    """Read `gateway.json`.

    Raises:
        ConfigError: it is missing or wrong.
    """
    try:
        return Configuration.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: write it, or name another with --config") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error)}") from None
