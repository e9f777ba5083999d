"""The join line: all that a client must know to use this relay, in one word without a secret (docs/contract.md)."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opencode_common.files import read_regular
from opencode_relay.errors import EnrolmentError
from opencode_relay.keys import parse_key

if TYPE_CHECKING:
    from opencode_relay.clients import EnrolledMachine

HOST_KEY: Final = Path("/etc/ssh/ssh_host_ed25519_key.pub")
_PREFIX: Final = "ocr1:"
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_MAX_HOST: Final = 253


def join_line(client: EnrolledMachine, *, host: str, port: int, user: str, host_key: str) -> str:
    """Return the join line of `client`. `host_key`: kind and base64; `user`: whom clients log in as.

    Raises:
        EnrolmentError: `host` or `port` is nothing that ssh could be given.
    """
    if not (_HOST_NAME.fullmatch(host) or _is_ipv6(host)) or len(host) > _MAX_HOST:
        raise EnrolmentError(f"--host {host[:80]!a} is neither a host name nor an address")
    if not 1 <= port <= 65535:
        raise EnrolmentError(f"--port {port} is no TCP port")
    fields = {
        "host": host,
        "port": port,
        "user": user,
        "hostKey": host_key,
        "client": client.name,
        "ports": f"{client.first}-{client.last}",
    }
    text = json.dumps(fields, separators=(",", ":")).encode()
    return _PREFIX + base64.urlsafe_b64encode(text).decode().rstrip("=")


def read_host_key(path: Path) -> str:
    """Read a `.pub` file of sshd's.

    Raises:
        EnrolmentError: there is none, or it is no key that a client can be told.
    """
    try:
        return str(parse_key(read_regular(path).decode("ascii").strip()))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise EnrolmentError(
            f"the host key {path} cannot be read ({reason}): "
            "make it with `ssh-keygen -A`, or name another by --host-key-file"
        ) from error
    except EnrolmentError as error:
        raise EnrolmentError(f"the host key {path} {error}; name another by --host-key-file") from error


def _is_ipv6(text: str) -> bool:
    try:
        return not ipaddress.IPv6Address(text).scope_id
    except ValueError:
        return False
