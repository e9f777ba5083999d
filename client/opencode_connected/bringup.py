"""From "OpenCode was started" to "it is registered": whose port it is, whether it answers, what it calls itself.

Loaded while OpenCode boots, which takes seconds: what this module imports costs no time before that.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_connected.errors import LauncherError
from opencode_connected.loopback import HOST, Endpoint, Unanswered
from opencode_connected.opencode import PortTaken, listening_process

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL_SECONDS = 0.02
_REQUEST_SECONDS = 5.0
_SLOW_START_SECONDS = 60.0
"""OpenCode needs 3 to 6 s; after this time the log says that it has not come up."""


@dataclass(frozen=True)
class Answering:
    """An OpenCode that answers."""

    server_pid: int
    """The process that listens: the child, or a descendant where a script starts the real program."""
    version: str | None
    """None if OpenCode tells it to nobody without a password that we do not know."""
    directory: str | None
    """Where it works; None as for `version`."""


async def wait_until_answering(pid: int, endpoint: Endpoint, log: Callable[[str], None]) -> Answering:
    """Wait, as long as it takes, until OpenCode, started as process `pid`, answers on its port.

    Raises:
        PortTaken: another program has the port.
        LauncherError: OpenCode can be reached from other machines.

    """
    began = time.monotonic()
    slow = False
    while True:
        if await asyncio.to_thread(_accepts, endpoint.port):
            server_pid = await _owner_on_loopback(pid, endpoint.port)
            version = await asyncio.to_thread(_version, endpoint)
            if server_pid is not None and version is not None:
                return Answering(server_pid, version or None, await asyncio.to_thread(_directory, endpoint))
        if not slow and time.monotonic() - began > _SLOW_START_SECONDS:
            slow = True
            log(f"OpenCode has not answered on port {endpoint.port} for {_SLOW_START_SECONDS:.0f} s")
        await asyncio.sleep(_POLL_SECONDS)


async def _owner_on_loopback(pid: int, port: int) -> int | None:
    """Return the process of OpenCode's that listens on `port`; None if it is too early to tell."""
    found = await asyncio.to_thread(listening_process, pid, port)
    if found is None:
        # Asked once more: it may have come to listen, or the child to end, between the two looks.
        still = await asyncio.to_thread(_accepts, port)
        found = await asyncio.to_thread(listening_process, pid, port)
        if found is None and still:
            raise PortTaken
        if found is None:
            return None
    server_pid, addresses = found
    if exposed := sorted(a for a in addresses if not ipaddress.ip_address(a.partition("%")[0]).is_loopback):
        raise LauncherError(
            f"OpenCode listens on {exposed[0]}, not only on {HOST}: remove `server.hostname` and `server.mdns` "
            "from its configuration"
        )
    return server_pid


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=_REQUEST_SECONDS).close()
    except OSError:
        return False
    return True


def _version(endpoint: Endpoint) -> str | None:
    """Return OpenCode's version, empty where it wants a password, None if it does not answer yet."""
    try:
        status, body = endpoint.get("/global/health", timeout=_REQUEST_SECONDS)
    except Unanswered:
        return None
    if status == 401:
        return ""
    return _text(body, "version") if status == 200 else None


def _directory(endpoint: Endpoint) -> str | None:
    try:
        status, body = endpoint.get("/path", timeout=_REQUEST_SECONDS)
    except Unanswered:
        return None
    directory = _text(body, "directory") if status == 200 else ""
    return directory if Path(directory).is_absolute() else None


def _text(body: bytes, key: str) -> str:
    try:
        value = json.loads(body)[key]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""
