"""What the kernel received on one TCP connection: the sign of life of a client whose messages wait behind data."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

from opencode_relay import sock_diag

_INFO: Final = 2
"""INET_DIAG_INFO: the attribute with a tcp_info."""
_QUERY: Final = struct.Struct("=BBBxI2s2s16s16sI8s")
"""inet_diag_req_v2: family, protocol, extensions, states, our port, theirs, our address, theirs, device, cookie."""
_ANY_COOKIE: Final = b"\xff" * 8
_SOCKET_SIZE: Final = 72
"""Of inet_diag_msg; attributes follow."""
_ATTRIBUTE: Final = struct.Struct("=HH")
_RECEIVED: Final = struct.Struct("=128xQ")
"""tcp_info up to tcpi_bytes_received, which Linux has since 4.1."""


@dataclass(frozen=True, slots=True)
class ConnectionEnds:
    """The two ends of a connection, as sshd tells them in SSH_CONNECTION."""

    client: str
    client_port: int
    relay: str
    relay_port: int

    def bytes_received(self) -> int | None:
        """Return what came from the client so far; None where the kernel knows no such connection."""
        family = socket.AF_INET6 if ":" in self.client else socket.AF_INET
        try:
            ours, theirs = (socket.inet_pton(family, address) for address in (self.relay, self.client))
            ports = (port.to_bytes(2, "big") for port in (self.relay_port, self.client_port))
            query = _QUERY.pack(
                family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0xFFFFFFFF, *ports, ours, theirs, 0, _ANY_COOKIE
            )
            return next((_received(answer) for answer in sock_diag.ask(query, several=False)), None)
        except (OSError, OverflowError):  # an address with a scope, another network namespace, a proxy in front
            return None


def _received(answer: bytes) -> int | None:
    at = _SOCKET_SIZE
    while at + _ATTRIBUTE.size <= len(answer):
        length, kind = _ATTRIBUTE.unpack_from(answer, at)
        if kind == _INFO and length >= _ATTRIBUTE.size + _RECEIVED.size:
            received: int = _RECEIVED.unpack_from(answer, at + _ATTRIBUTE.size)[0]
            return received
        if length < _ATTRIBUTE.size:
            break
        at += (length + 3) & ~3
    return None
