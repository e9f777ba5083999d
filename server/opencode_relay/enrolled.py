"""The agent's view of who is enrolled: `clients.json`, read again whenever it changes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from opencode_common.files import read_regular
from opencode_relay.clients import EnrolledMachine, EnrolledMachines
from opencode_relay.errors import RelayConfigError
from opencode_relay.processes import Identity

if TYPE_CHECKING:
    import os
    from pathlib import Path

log = logging.getLogger(__name__)


class Enrolled:
    """The clients that may register now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._clients: dict[Identity, EnrolledMachine] = {}
        self.is_known = True
        """Whether the file was ever read, or is not there as nobody was enrolled yet."""
        self.refresh()

    def refresh(self) -> bool:
        """Read the file if it changed; return whether somebody who was enrolled is not any more.

        A file that cannot be read changes nothing: a mistake must not cut everybody off.
        """
        try:
            status = self._path.stat()
            if self._seen == _version(status):
                return False
            self._seen = _version(status)
            clients = EnrolledMachines.parse(read_regular(self._path), self._path).clients
        except FileNotFoundError:  # nobody was enrolled yet
            return False
        except (OSError, RelayConfigError) as error:
            log.error("who is enrolled is not read again: %s", error)  # noqa: TRY400 # for a person to mend
            self.is_known = bool(self._clients)
            return False
        self.is_known = True
        before = self._clients.keys()
        self._clients = {Identity(client.name, client.fingerprint): client for client in clients}
        return bool(before - self._clients.keys())

    def find(self, identity: Identity) -> EnrolledMachine | None:
        """Return the client if it is enrolled with this key."""
        return self._clients.get(identity)


def _version(status: os.stat_result) -> tuple[int, ...]:
    # When its mode changed counts too: that may be what it could not be read for.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
