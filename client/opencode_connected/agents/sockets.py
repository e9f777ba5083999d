"""Who listens on a port of this machine, by the kernel's own word: cheap enough to ask before every request.

Asked by sock_diag(7), over netlink, which is told the port. To look at processes, or to read /proc/net/tcp, takes
milliseconds: there the kernel goes through all that is open, or its table of all connections.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_DUMP_REQUEST = 0x301
_ERROR, _DONE = 2, 3
_LISTEN = 1 << 10
_MESSAGE = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, number, sender."""
_QUERY = struct.Struct("=BBxxI2s46x")
"""inet_diag_req_v2: family, protocol, states, port (in network order)."""
_ANSWER = struct.Struct("=4x2s2x16s28x12xII")
"""inet_diag_msg: port and address (in network order), user, inode."""
_ANSWER_BYTES = 64 * 1024
_FROM_LOOPBACK = frozenset({"127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0"})  # noqa: S104 # compared
"""Where a connection to 127.0.0.1 may arrive."""


@dataclass(frozen=True)
class Socket:
    """A socket that listens. `uid`: whose it is; `inode`: its number, which no other socket has while it is open."""

    address: str
    uid: int
    inode: int


def receivers(port: int) -> frozenset[Socket] | None:
    """Return the sockets that a connection to TCP `port` of 127.0.0.1 may reach; None where the kernel tells of none.

    That is so on other systems than Linux, and in some sandboxes.
    """
    try:
        found = {one for family in (socket.AF_INET, socket.AF_INET6) for one in _listeners(family, port)}
    except (AttributeError, OSError, struct.error):  # AttributeError: Python has no netlink there
        return None
    in_ipv4 = frozenset(one for one in found if one.address in _FROM_LOOPBACK)
    # Who listens on all of IPv6 may have IPv4 too, or leave it to somebody else.
    return in_ipv4 or frozenset(one for one in found if one.address == "::")


def are_own(found: frozenset[Socket]) -> bool:
    """Tell whether there are any, and all are this user's."""
    return bool(found) and all(one.uid == os.geteuid() for one in found)


def _listeners(family: socket.AddressFamily, port: int) -> Iterator[Socket]:
    wanted = port.to_bytes(2, "big")
    query = _QUERY.pack(family, socket.IPPROTO_TCP, _LISTEN, wanted)
    for answer in _dump(query):
        its_port, address, uid, inode = _ANSWER.unpack_from(answer)
        if its_port == wanted:
            yield Socket(socket.inet_ntop(family, address[: 4 if family == socket.AF_INET else 16]), uid, inode)


def _dump(query: bytes) -> Iterator[bytes]:
    """Yield the inet_diag_msg of each socket that answers to `query`, an inet_diag_req_v2."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(_MESSAGE.pack(_MESSAGE.size + len(query), _SOCK_DIAG_BY_FAMILY, _DUMP_REQUEST, 0, 0) + query)
        while True:
            answer = kernel.recv(_ANSWER_BYTES)
            at = 0
            while at < len(answer):
                length, kind, *_ = _MESSAGE.unpack_from(answer, at)
                body = answer[at + _MESSAGE.size : at + length]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, os.strerror(number))
                yield body
                at += (length + 3) & ~3
