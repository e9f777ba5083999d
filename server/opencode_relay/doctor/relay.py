"""What there is to look at: by the files that the roles have written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from opencode_common.files import read_regular
from opencode_relay.errors import RelayConfigError

if TYPE_CHECKING:
    from opencode_relay.settings import RelaySettings

GATEWAY_JSON: Final = Path("/etc/opencode-gateway/gateway.json")
SITE: Final = Path("/etc/caddy/opencode-relay/gateway.caddy")
_OWN_AUTHORITY: Final = Path("/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt")


@dataclass(frozen=True)
class ExaminedGateway:
    """The door for chat clients."""

    public_url: str
    """`https://HOST`, or `http://127.0.0.1:PORT` where it has no public name."""
    listen: str
    """`ADDRESS:PORT`, behind the front."""
    has_site: bool
    """Whether the front is the Caddy of the roles, and no proxy of somebody else's."""
    authority: Path | None = None
    """The certificate of the front's own authority, where it has one (`relay_tls: internal`)."""

    @classmethod
    def read(cls, settings: Path = GATEWAY_JSON, site: Path = SITE) -> Self | None:
        """Return the gateway of this relay; None where there is none.

        Raises:
            ConfigError: its settings cannot be read.
        """
        try:
            told = json.loads(read_regular(settings))
            url, listen = str(told["public_url"]), str(told.get("listen", "127.0.0.1:8790"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RelayConfigError(f"{settings} cannot be read: {error.strerror}; try as root") from error
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RelayConfigError(f"{settings} is damaged: run the playbook relay.yml") from None
        try:
            is_own = b"tls internal" in read_regular(site)
        except OSError:
            return cls(url, listen, has_site=False)
        return cls(url, listen, has_site=True, authority=_OWN_AUTHORITY if is_own else None)

    @property
    def host(self) -> str:
        """The public name; empty where there is none."""
        parts = urlsplit(self.public_url)
        return (parts.hostname or "") if parts.scheme == "https" else ""

    @property
    def port(self) -> int:
        """Of https."""
        return urlsplit(self.public_url).port or 443


@dataclass(frozen=True)
class ExaminedRelay:
    """The relay that is looked at. `sshd`: the command that says what its configuration means."""

    etc: Path
    settings: RelaySettings
    gateway: ExaminedGateway | None
    sshd: tuple[str, ...] = ("/usr/sbin/sshd",)
    host_key: Path = Path("/etc/ssh/ssh_host_ed25519_key")
