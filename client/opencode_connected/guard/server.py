"""The guard's listeners: a unix socket behind ssh, a loopback port without a relay."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

from opencode_connected.errors import LauncherError
from opencode_connected.guard.door import GuardDoor
from opencode_connected.guard.gate import Gate
from opencode_connected.guard.refusals import RefusalLog, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opencode_connected.guard.opening import OpensDirectories
    from opencode_connected.guard.policy import Policy
    from opencode_connected.guard.upstream import Upstream

MAX_CONNECTIONS = 64
PORTS = range(4096, 5096)
"""Where a guard without a relay listens; old relays and servers know the range."""
_LINE_BYTES = 32 << 10
"""Of a request line: a directory of 4096 characters takes up to nine bytes for each."""
_FIELD_BYTES = 16 << 10
_IDLE_SECONDS = 75.0
"""Of a connection between two requests; a server keeps one for a minute."""
_LOOK_SECONDS = 1.0
_END_SECONDS = 2.0
"""For answers under way to end when the guard closes."""

# What aiohttp says about strangers' requests must not reach the person's screen, where OpenCode draws.
_QUIET = logging.getLogger("opencode_connected.guard.http")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class Guard:
    """The proxy between tunnel and agent. Listen on one or both, then `close`.

    `policy` is asked for each request; `log` takes one line without control characters; `opener` opens directories,
    where that can be.
    """

    def __init__(
        self,
        upstream: Upstream,
        policy: Callable[[], Policy],
        *,
        log: Callable[[str], None],
        opener: OpensDirectories | None = None,
    ) -> None:
        self._opener = opener
        self._upstream = upstream
        self._policy = policy
        self._refusals = RefusalLog(log)
        self._gate: Gate | None = None
        self._servers: list[web.Server] = []
        self._listeners: list[asyncio.Server] = []
        self._looker: asyncio.Task[None] | None = None
        self._idle_since: dict[object, float] = {}
        self._socket: tuple[Path, tuple[int, int]] | None = None

    async def listen_on_socket(self, path: Path, password: tuple[str, str] | None = None) -> None:
        """Listen on a unix socket, for this user alone; its directory is closed to others already.

        With `password`, user and password, each request must bring them.

        Raises:
            LauncherError: it cannot be made, or somebody listens there.

        """
        listening = socket.socket(socket.AF_UNIX)
        try:
            self._socket = (path, _bind(listening, path))
        except OSError as error:
            listening.close()
            raise LauncherError(f"the guard cannot listen on {path}: {error}; remove it, or free the disk") from error
        await self._listen(listening, password)

    async def listen_on_port(self, credentials: tuple[str, str]) -> int:
        """Listen on a free port of 127.0.0.1, and return it. Each request must bring user and password.

        Raises:
            LauncherError: no port is free.

        """
        start = random.randrange(len(PORTS))  # noqa: S311 - spreads guards over ports, hides nothing
        for offset in range(len(PORTS)):
            port = PORTS[(start + offset) % len(PORTS)]
            listening = socket.socket()
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(("127.0.0.1", port))
                listening.listen()
            except OSError:
                listening.close()
                continue
            await self._listen(listening, credentials)
            return port
        raise LauncherError(f"no port of {PORTS[0]}-{PORTS[-1]} is free on 127.0.0.1: end what listens there")

    async def close(self) -> None:
        """End all streams and calls, and remove the socket; done within a few seconds."""
        if self._looker is not None:
            self._looker.cancel()
        for listener in self._listeners:
            listener.close()
        if self._gate is not None:
            self._gate.end_streams()
        for server in self._servers:
            # Connections on which nothing is asked close at once, the others after their answer.
            server.pre_shutdown()
            await server.shutdown(_END_SECONDS)
        if self._gate is not None:
            await self._gate.close()
        if self._socket is not None:
            path, identity = self._socket
            _unlink(path, identity)
        self._listeners.clear()
        self._servers.clear()
        self._looker = self._gate = self._socket = None

    async def _listen(self, listening: socket.socket, credentials: tuple[str, str] | None) -> None:
        if self._gate is None:
            self._gate = Gate(self._upstream, self._policy, self._refusals, self._opener)
            self._looker = asyncio.create_task(self._look(self._gate))
        gate = self._gate
        door = GuardDoor(credentials)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await self._handle(request, door, gate)

        server = web.Server(
            handle,
            handler_cancellation=True,
            access_log=None,
            logger=_QUIET,
            keepalive_timeout=_IDLE_SECONDS,
            max_line_size=_LINE_BYTES,
            max_field_size=_FIELD_BYTES,
            auto_decompress=False,
        )
        self._servers.append(server)

        def connection() -> asyncio.Protocol:
            if sum(len(one.connections) for one in self._servers) >= MAX_CONNECTIONS:
                self._refusals.add("connections", f"refused a connection beyond {MAX_CONNECTIONS}")
                return _Full()
            protocol = server()
            self._idle_since[protocol] = time.monotonic()
            return protocol

        loop = asyncio.get_running_loop()
        make = loop.create_unix_server if listening.family == socket.AF_UNIX else loop.create_server
        self._listeners.append(await make(connection, sock=listening, backlog=MAX_CONNECTIONS))

    async def _handle(self, request: web.BaseRequest, door: GuardDoor, gate: Gate) -> web.StreamResponse:
        self._idle_since.pop(request.protocol, None)
        try:
            door.check(request.headers)
            return await gate.answer(request)
        except RequestRefused as refused:
            self._refusals.add(refused.kind, refused.message)
            return refused.response()
        finally:
            self._idle_since[request.protocol] = time.monotonic()

    async def _look(self, gate: Gate) -> None:
        """Tell changes, and end connections on which nobody asks anything, or never finishes a request's head."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            gate.tell_changes()
            long_ago = time.monotonic() - _IDLE_SECONDS
            open_now = {protocol for server in self._servers for protocol in server.connections}
            for protocol in open_now:
                if self._idle_since.get(protocol, long_ago + 1) < long_ago:
                    protocol.force_close()
            self._idle_since = {key: since for key, since in self._idle_since.items() if key in open_now}


class _Full(asyncio.Protocol):
    """A connection too many: it ends at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _bind(listening: socket.socket, path: Path) -> tuple[int, int]:
    """Bind, also over a socket that somebody left who no longer listens; return which file it is."""
    try:
        listening.bind(str(path))
    except OSError:
        if not path.is_socket() or _answers(path):
            raise
        path.unlink()
        listening.bind(str(path))
    # Before `listen` nobody can connect, so it is never open to others.
    path.chmod(0o600)
    status = path.stat()
    return status.st_dev, status.st_ino


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def _unlink(path: Path, identity: tuple[int, int]) -> None:
    """Remove the socket unless somebody else's stands there by now."""
    with suppress(OSError):
        status = path.stat()
        if (status.st_dev, status.st_ino) == identity:
            path.unlink()
