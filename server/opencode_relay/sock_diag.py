"""Asks the kernel about its TCP sockets: sock_diag(7), over netlink."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 0x1
_NLM_F_DUMP: Final = 0x300
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_MESSAGE: Final = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, number, sender."""
_ANSWER_BYTES: Final = 64 * 1024


def ask(query: bytes, *, several: bool) -> Iterator[bytes]:
    """Yield the inet_diag_msg of each socket that answers to `query`, an inet_diag_req_v2, attributes included.

    `several`: those that the query's conditions hold for; else the one that its addresses and ports name.
    Raises `OSError` where there is no such socket, or no sock_diag.
    """
    flags = _NLM_F_REQUEST | (_NLM_F_DUMP if several else 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(_MESSAGE.pack(_MESSAGE.size + len(query), _SOCK_DIAG_BY_FAMILY, flags, 0, 0) + query)
        while True:
            answer = kernel.recv(_ANSWER_BYTES)
            at = 0
            while at < len(answer):
                length, kind, *_ = _MESSAGE.unpack_from(answer, at)
                body = answer[at + _MESSAGE.size : at + length]
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, os.strerror(number))
                yield body
                at += (length + 3) & ~3
            if not several:
                return
