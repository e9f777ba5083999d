"""How a connection comes from `session.py` to the agent, and what is believed of it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
from dataclasses import dataclass
from typing import Final

from opencode_relay.processes import Identity, Process, SshConnection
from opencode_relay.traffic import ConnectionEnds

_SECONDS: Final = 5.0
"""From the connection to its header, which are two system calls of the same process."""
_HEADER_MAX: Final = 1024
_PEERCRED: Final = struct.Struct("3i")
_SSH_CONNECTION: Final = re.compile(
    r"([0-9A-Za-z.:%]{1,64}) ([0-9]{1,5}) ([0-9A-Za-z.:%]{1,64}) ([0-9]{1,5})", re.ASCII
)


class NotASession(Exception):
    """Whoever connected to the socket is not what sshd runs for a client."""


class AskedByRoot(Exception):
    """Root connected, to see whether it is answered: `opencode-relay doctor`."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A client's connection. Whoever has it closes `connection` and both descriptors."""

    identity: Identity
    ends: ConnectionEnds | None
    """Of the TCP connection; None if sshd does not say."""
    incoming: int
    outgoing: int
    connection: SshConnection

    @property
    def address(self) -> str:
        """Where the client comes from, as `ADDRESS port PORT`; empty if sshd does not say."""
        return f"{self.ends.client} port {self.ends.client_port}" if self.ends else ""


async def receive(waiter: socket.socket, uid: int) -> Arrival:
    """Take over a connection of the tunnel user `uid`.

    Raises:
        NotASession: it is from somebody else, or is over already.
        Asked: it is root's, who wants to know whether the agent answers.
    """
    pid, peer_uid, _ = _PEERCRED.unpack(waiter.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    if peer_uid == 0:
        raise AskedByRoot
    if peer_uid != uid:
        raise NotASession(f"user {peer_uid} is not the tunnel user")
    try:
        async with asyncio.timeout(_SECONDS):
            await _readable(waiter)
        header, descriptors, _, _ = socket.recv_fds(waiter, _HEADER_MAX, 2)
    except (TimeoutError, OSError) as error:
        raise NotASession("it sent no header") from error
    try:
        client, fingerprint, ssh_connection = header.decode("ascii").split("\0")
        incoming, outgoing = descriptors
        connection = _connection_above(pid, uid)
    except ValueError as error:
        _close(descriptors)
        raise NotASession("its header is wrong") from error
    except NotASession:
        _close(descriptors)
        raise
    known = _SSH_CONNECTION.fullmatch(ssh_connection)
    ends = ConnectionEnds(known[1], int(known[2]), known[3], int(known[4])) if known else None
    return Arrival(Identity(client, fingerprint), ends, incoming, outgoing, connection)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _connection_above(pid: int, uid: int) -> SshConnection:
    process = Process.read(pid)
    connection = SshConnection.open(process.parent, uid) if process else None
    if connection is None:
        raise NotASession("sshd did not start it, or has ended it")
    return connection


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)
