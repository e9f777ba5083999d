"""The relay's settings: `relay.json`, written by whoever provisions the relay and only read here.

{"portRange":"10000-19999","blockSize":16,"registryDir":"/var/lib/opencode-relay","tunnelUser":"opencode-tunnel",
 "agentUser":"opencode-relay","socket":"/run/opencode-relay.sock","gatewayUser":"opencode-gateway",
 "gatewayDataDir":"/var/lib/opencode-gateway","stateDir":"/var/lib/opencode-relay-state","journalDays":14}

What has a default below may be missing.
"""

from __future__ import annotations

import pwd
import re
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from opencode_common.files import read_regular
from opencode_common.validation import describe
from opencode_relay.errors import RelayConfigError

ETC: Final = Path("/etc/opencode-relay")
MAX_BLOCK: Final = 64
"""Ports of one client: each is a word in its line of authorized_keys."""

_PATH: Final = re.compile(r"/[A-Za-z0-9._/-]+", re.ASCII)
_User = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]


class RelaySettings(BaseModel):
    """What `relay.json` says, validated."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, extra="forbid")

    port_range: Annotated[str, Field(pattern=r"^[1-9][0-9]{3,4}-[1-9][0-9]{3,4}$")]
    """`LOW-HIGH`: the tunnel ports of all clients, cut into blocks from its beginning."""
    block_size: Annotated[int, Field(ge=1, le=MAX_BLOCK, strict=True)]
    """Ports of one client."""
    registry_dir: Path
    """Where the agent writes registrations and the gateway reads them."""
    tunnel_user: _User
    """Whom all clients log in as."""
    agent_user: _User
    """Who runs the agent and owns the registry directory."""
    socket: Path = Path("/run/opencode-relay.sock")
    """Where sessions find the agent."""
    gateway_user: _User = "opencode-gateway"
    """Who runs the gateway, where there is one."""
    gateway_data_dir: Path = Path("/var/lib/opencode-gateway")
    """Where the gateway keeps people, clients and sessions, as this host sees it."""
    state_dir: Path | None = None
    """Where all copies of the server keep their one journal; None in a file from before there was one."""
    journal_days: Annotated[int, Field(ge=1, le=365, strict=True)] = 14
    """How long the journal keeps what happened."""

    @field_validator("registry_dir", "socket", "gateway_data_dir", "state_dir")
    @classmethod
    def _plain(cls, path: Path | None) -> Path | None:
        # The socket's stands in a quoted command of authorized_keys.
        if path is not None and not _PATH.fullmatch(str(path)):
            raise ValueError("must be an absolute path of letters, digits and . _ - /")
        return path

    @model_validator(mode="after")
    def _range_holds_a_block(self) -> Self:
        if self.ports.start < 1024 or self.ports.stop > 65536 or len(self.ports) < self.block_size:
            raise ValueError("portRange must lie in 1024-65535 and hold at least one block of blockSize ports")
        return self

    @property
    def ports(self) -> range:
        """The tunnel ports of all clients."""
        low, _, high = self.port_range.partition("-")
        return range(int(low), int(high) + 1)


def load_settings(etc: Path) -> RelaySettings:
    """Read `relay.json` in `etc`.

    Raises:
        ConfigError: it is missing or wrong.
    """
    path = etc / "relay.json"
    try:
        return RelaySettings.model_validate_json(read_regular(path))
    except FileNotFoundError:
        raise RelayConfigError(
            f"{path} is missing: this machine is no provisioned relay. Run this command on the relay; "
            "to make this machine one, run the playbook relay.yml"
        ) from None
    except OSError as error:
        raise RelayConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise RelayConfigError(
            f"{path}: {describe(error)}; correct the role's variable and run the playbook"
        ) from None


def account(user: str) -> pwd.struct_passwd:
    """Return the account of `user`.

    Raises:
        ConfigError: there is none.
    """
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise RelayConfigError(
            f"there is no user {user}, whom relay.json names: run the playbook relay.yml"
        ) from None
