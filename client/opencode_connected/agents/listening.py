"""Whose process listens on a port of this machine. Nobody else's is asked anything, and none gets a password."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_connected.agents import sockets

if TYPE_CHECKING:
    import psutil

_MAPPED = "::ffff:"
_FROM_LOOPBACK = frozenset({"127.0.0.1", "0.0.0.0"})  # noqa: S104 - where a connection to 127.0.0.1 may arrive
_ABSENT_SECONDS = 1.0
"""For which nobody is looked for once more: to look at all processes takes half a second."""


def addresses(process: psutil.Process, port: int) -> frozenset[str]:
    """Return the addresses at which `process` listens on TCP `port`. Raises `psutil.Error`."""
    import psutil  # noqa: PLC0415 - 35 ms; asked only when OpenCode has come up

    connections = process.net_connections(kind="tcp")
    return frozenset(c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN and c.laddr.port == port)


def is_own(process: psutil.Process) -> bool:
    """Tell whether `process` is this user's. Raises `psutil.Error`."""
    return process.uids().effective == os.geteuid()


class OwnListener:
    """The program of this user that listens on a port of 127.0.0.1, followed while it is restarted."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._process: psutil.Process | None = None
        self._absent_until = 0.0
        self._looking = threading.Lock()

    def is_there(self) -> bool:
        """Tell whether there is one now. Takes 0.1 ms, or, where the kernel cannot be asked, up to a second.

        There, one that comes may be told of a second late, one that goes never.
        """
        found = sockets.receivers(self.port)
        return self._is_found() if found is None else sockets.are_own(found)

    async def is_there_now(self) -> bool:
        """Tell the same, without holding up anything else."""
        found = sockets.receivers(self.port)
        return await asyncio.to_thread(self._is_found) if found is None else sockets.are_own(found)

    def _is_found(self) -> bool:
        with self._looking:
            if self._process is not None and _has_port(self._process, self.port):
                return True
            if time.monotonic() < self._absent_until:
                return False
            self._process = self._find()
            if self._process is None:
                self._absent_until = time.monotonic() + _ABSENT_SECONDS
            return self._process is not None

    def _find(self) -> psutil.Process | None:
        import psutil  # noqa: PLC0415 - see above

        return next((process for process in psutil.process_iter() if _has_port(process, self.port)), None)


class SeenListener:
    """What listens on a port while its owner is looked at, and whether it is still that which listens there.

    Neither the process's number nor the port is believed later: the one may be used again, the other be taken by
    another user. `pid`: the owner, who is asked where the kernel cannot be.
    """

    def __init__(self, port: int, pid: int) -> None:
        self._port = port
        self._sockets = sockets.receivers(port)
        self._process = None if self._sockets is not None else _process(pid)

    def is_there(self) -> bool:
        """Tell whether it still is. Takes 0.1 ms, or, where the kernel cannot be asked, some milliseconds."""
        if self._sockets is not None:
            return bool(self._sockets) and sockets.receivers(self._port) == self._sockets
        return self._process is not None and _has_port(self._process, self._port)

    def is_own(self) -> bool:
        """Tell whether it is this user's, and nobody else's beside it."""
        return self.is_there() if self._sockets is None else sockets.are_own(self._sockets)


def _process(pid: int) -> psutil.Process | None:
    import psutil  # noqa: PLC0415 - see above

    with suppress(psutil.Error):
        return psutil.Process(pid)
    return None


def _has_port(process: psutil.Process, port: int) -> bool:
    """Tell whether `process` is this user's and gets what connects to the port; it may live on without it."""
    import psutil  # noqa: PLC0415 - see above

    with suppress(psutil.Error):
        if not (is_own(process) and process.is_running()):
            return False
        listening = {address.removeprefix(_MAPPED) for address in addresses(process, port)}
        # Who listens on all of IPv6 may have IPv4 too, or leave it to somebody else.
        return not _FROM_LOOPBACK.isdisjoint(listening) or ("::" in listening and not _in_ipv4(port))
    return False


def _in_ipv4(port: int) -> bool:
    """Tell whether anybody listens on 127.0.0.1 in IPv4 alone. Raises `psutil.Error` where that cannot be seen."""
    import psutil  # noqa: PLC0415 - see above

    return any(
        c.status == psutil.CONN_LISTEN and c.laddr[1] == port and c.laddr[0] in _FROM_LOOPBACK
        for c in psutil.net_connections(kind="tcp4")
        if c.laddr
    )
