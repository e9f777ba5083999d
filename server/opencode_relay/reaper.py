"""Ends connections that run no session, such as those of `ssh -N -R`: without the forced command nobody is known."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Final

from opencode_relay.limits import NAMELESS
from opencode_relay.processes import SshConnection, connections

if TYPE_CHECKING:
    from opencode_relay.limits import ClientLog

_SECONDS: Final = 10.0
"""From the log-in to the session. A launcher needs a round trip; on a relay that 300 of them log in to, seconds."""


class Reaper:
    """Looks for such connections whenever it is told to, about every two seconds."""

    def __init__(self, uid: int, journal: ClientLog) -> None:
        self._uid = uid
        self._log = journal
        self._deadlines: dict[int, float] = {}
        self._asked: set[int] = set()

    def sweep(self, known: set[int], now: float) -> None:
        """End what is overdue. `known`: sshd's processes of connections with a session; `now`: a monotonic time."""
        bare = connections(self._uid, known)
        self._deadlines = {pid: self._deadlines.get(pid, now + _SECONDS) for pid in bare}
        self._asked &= bare
        for pid, deadline in self._deadlines.items():
            if now >= deadline:
                self._end(pid)

    def _end(self, pid: int) -> None:
        connection = SshConnection.open(pid, self._uid)
        if connection is None:
            return
        with connection:
            if pid not in self._asked:
                text = "ended a connection without a session (sshd's process %d)"
                self._log.write(logging.WARNING, NAMELESS, text, connection.monitor)
            connection.signal(signal.SIGKILL if pid in self._asked else signal.SIGTERM)
            self._asked.add(pid)
