"""Who listens on which TCP port of this machine, by the kernel's own word.

Asked by sock_diag(7), which is told the ports: to read /proc/net/tcp the kernel goes through its table of all
connections, 5 to 10 ms each time, and this is asked twice in every handshake.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final, Literal

from opencode_relay import sock_diag

if TYPE_CHECKING:
    from collections.abc import Iterator

_TCP_LISTEN: Final = 10
_REQ_BYTECODE: Final = 1
_SOURCE_PORT_GE: Final = 2
_SOURCE_PORT_LE: Final = 3

_QUERY: Final = struct.Struct("=BBBxI48x")
"""inet_diag_req_v2: family, protocol, extensions, states, an address that is not looked at."""
_ATTRIBUTE: Final = struct.Struct("=HH")
_CONDITION: Final = struct.Struct("=BBHxxH")
"""Two inet_diag_bc_op: what is compared, where to go on if it holds and if not, with which port."""
_SOCKET: Final = struct.Struct("=BBxx2s2x16s28x12xI4x")
"""inet_diag_msg: family, state, port and address (in network order), user."""
_LOOPBACK: Final = socket.inet_aton("127.0.0.1")

Verdict = Literal["ok", "exposed", "foreign"]
"""`ok`: the user listens on 127.0.0.1 alone; `exposed`: elsewhere (too); `foreign`: the user does not listen."""


class Listeners:
    """Those on the ports of a range, as they were at one moment."""

    def __init__(self, ports: range) -> None:
        """Ask. Raises `OSError` on a kernel without sock_diag, which no supported one is."""
        self._by_port: dict[int, list[tuple[bytes, int]]] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            for port, address, uid in _listening(family, ports):
                self._by_port.setdefault(port, []).append((address, uid))

    def verdict(self, port: int, uid: int) -> Verdict:
        """Say whether user `uid` alone decides what answers on 127.0.0.1:`port`, and only there."""
        # Another user's listener on another address is no concern of a reader of 127.0.0.1, and no reason to refuse.
        own = {address for address, owner in self._by_port.get(port, ()) if owner == uid}
        if own - {_LOOPBACK}:
            return "exposed"
        return "ok" if own else "foreign"

    def all(self) -> list[tuple[int, str, int]]:
        """Return port, address and user of each."""
        return [
            (port, socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address), uid)
            for port, listeners in sorted(self._by_port.items())
            for address, uid in listeners
        ]

    def free(self, ports: range) -> list[int]:
        """Return those of `ports` on which nobody listens."""
        return [port for port in ports if port not in self._by_port]


def _listening(family: socket.AddressFamily, ports: range) -> Iterator[tuple[int, bytes, int]]:
    """Yield port, address and user of each listener."""
    for answer in sock_diag.ask(_query(family, ports), several=True):
        _, _, port, address, uid = _SOCKET.unpack_from(answer)
        yield int.from_bytes(port, "big"), address[: 4 if family == socket.AF_INET else 16], uid


def _query(family: socket.AddressFamily, ports: range) -> bytes:
    # Both must hold: what fails the one goes on behind the end, which means no.
    conditions = _CONDITION.pack(_SOURCE_PORT_GE, 8, 20, ports.start) + _CONDITION.pack(
        _SOURCE_PORT_LE, 8, 12, ports.stop - 1
    )
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(conditions), _REQ_BYTECODE) + conditions
    return _QUERY.pack(family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN) + attribute
