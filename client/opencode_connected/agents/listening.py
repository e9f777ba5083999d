"""Whose process listens on a port of this machine. Nobody else's is asked anything, and none gets a password."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_FROM_LOOPBACK = frozenset({"127.0.0.1", "0.0.0.0", "::"})  # noqa: S104 - where a connection to 127.0.0.1 may arrive


def addresses(process: psutil.Process, port: int) -> frozenset[str]:
    """Return the addresses at which `process` listens on TCP `port`. Raises `psutil.Error`."""
    import psutil  # noqa: PLC0415 - 35 ms; asked only when OpenCode has come up

    connections = process.net_connections(kind="tcp")
    return frozenset(c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN and c.laddr.port == port)


def is_own(process: psutil.Process) -> bool:
    """Tell whether `process` is this user's. Raises `psutil.Error`."""
    return process.uids().effective == os.geteuid()


class OwnListener:
    """The process of this user that listens on a port of 127.0.0.1, followed while it is restarted."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._process: psutil.Process | None = None

    def is_there(self) -> bool:
        """Tell whether there is one. As long as the one that was seen lives, nobody else can have the port."""
        if self._process is None or not _lives(self._process):
            self._process = self._find()
        return self._process is not None

    def _find(self) -> psutil.Process | None:
        import psutil  # noqa: PLC0415 - see above

        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if is_own(process) and not _FROM_LOOPBACK.isdisjoint(addresses(process, self.port)):
                    return process
        return None


def _lives(process: psutil.Process) -> bool:
    import psutil  # noqa: PLC0415 - see above

    # One that has ended and that nobody has reaped yet listens no more.
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
