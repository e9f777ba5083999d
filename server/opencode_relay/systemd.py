"""The few words that a service exchanges with systemd."""

from __future__ import annotations

import logging
import os
import socket
from typing import Final

from opencode_relay.errors import RelayConfigError

_FIRST_DESCRIPTOR: Final = 3
_PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def listening_socket() -> socket.socket:
    """Return the one socket that this process was started with.

    Raises:
        ConfigError: there is none, or several.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        raise RelayConfigError("the agent is started by its socket: systemctl start opencode-relay-agent.socket")
    return socket.socket(fileno=_FIRST_DESCRIPTOR)


def watchdog() -> None:
    """Tell systemd that this process is well, if it wants to know."""
    if "WATCHDOG_USEC" in os.environ:
        notify("WATCHDOG=1")


def notify(state: str) -> None:
    """Tell systemd, such as `READY=1`; nothing happens where it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service_manager:
            service_manager.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            service_manager.send(state.encode())


class JournalFormatter(logging.Formatter):
    """Puts the priority in front, as the journal reads it from standard error; it keeps the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record, every line of it with its priority."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())
