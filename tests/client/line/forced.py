"""A relay whose forced command stands in for a provisioned relay's agent."""

from __future__ import annotations

import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from support.line.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

AGENT = Path(__file__).with_name("fake_agent.py")


@contextmanager
def provisioned(directory: Path, *block: int, says: str | None = None) -> Iterator[Sshd]:
    """Run a relay where the client `laptop` has these ports; `says`: what its forced command says before it ends."""
    with Sshd(directory) as sshd:
        key = sshd.authorized_keys.read_text()
        sshd.authorized_keys.write_text(entry(key, *block, says=says))
        yield sshd


def entry(key: str, *block: int, says: str | None = None, client: str = "laptop") -> str:
    """Return the line of authorized_keys that enrols `key`."""
    command = ["echo", says] if says else [sys.executable, str(AGENT), client, *map(str, block)]
    quoted = shlex.join(command).replace('"', '\\"')
    listen = "".join(f',permitlisten="127.0.0.1:{port}"' for port in block)
    return f'restrict,port-forwarding{listen},command="{quoted}" {key}'
