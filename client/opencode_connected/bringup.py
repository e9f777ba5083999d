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
from typing import TYPE_CHECKING

from opencode_connected.agents.opencode1 import PortTaken, listening_process, working_directory
from opencode_connected.errors import LauncherError
from opencode_connected.loopback import HOST, LoopbackEndpoint, Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_POLL_SECONDS = 0.02
_LEAST_PATIENCE_SECONDS = 0.1
_MOST_PATIENCE_SECONDS = 5.0
"""A request that comes just as OpenCode begins to listen is never answered, and a later one at once. So the first
ones are given up early; the longer it takes, the more time each gets, as a busy machine needs it."""
_PATIENCE_SHARE = 0.25
"""Of the time since OpenCode listens."""
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
    """Where it works: not where the launcher does if it was given a project. None if that cannot be told."""


async def wait_until_answering(pid: int, endpoint: LoopbackEndpoint, log: Callable[[str], None]) -> Answering:
    """Wait, as long as it takes, until OpenCode, started as process `pid`, answers on its port.

    Raises:
        PortTaken: another program has the port.
        LauncherError: OpenCode can be reached from other machines.

    """
    began = time.monotonic()
    slow = False
    listens_since: float | None = None
    server_pid: int | None = None
    while True:
        if await asyncio.to_thread(accepts, endpoint.port):
            listens_since = listens_since or time.monotonic()
            server_pid = server_pid or await _owner_on_loopback(pid, endpoint.port)
            patience = max(_LEAST_PATIENCE_SECONDS, _PATIENCE_SHARE * (time.monotonic() - listens_since))
            version = await asyncio.to_thread(_version, endpoint, min(patience, _MOST_PATIENCE_SECONDS))
            if server_pid is not None and version is not None:
                return Answering(server_pid, version or None, working_directory(server_pid))
        if not slow and time.monotonic() - began > _SLOW_START_SECONDS:
            slow = True
            log(f"OpenCode has not answered on port {endpoint.port} for {_SLOW_START_SECONDS:.0f} s")
        await asyncio.sleep(_POLL_SECONDS)


async def _owner_on_loopback(pid: int, port: int) -> int | None:
    """Return the process of OpenCode's that listens on `port`; None if it is too early to tell."""
    found = await asyncio.to_thread(listening_process, pid, port)
    if found is None:
        # Asked once more: it may have come to listen, or the child to end, between the two looks.
        still = await asyncio.to_thread(accepts, port)
        found = await asyncio.to_thread(listening_process, pid, port)
        if found is None and still:
            raise PortTaken
        if found is None:
            return None
    server_pid, addresses = found
    if exposed := exposure(addresses):
        raise LauncherError(
            f"OpenCode listens on {exposed}, not only on {HOST}: remove `server.hostname` and `server.mdns` "
            "from its configuration"
        )
    return server_pid


def exposure(addresses: Collection[str]) -> str | None:
    """Return the first of the addresses that other machines could reach; None if all are loopback's."""
    open_ones = sorted(a for a in addresses if not ipaddress.ip_address(a.partition("%")[0]).is_loopback)
    return open_ones[0] if open_ones else None


def accepts(port: int) -> bool:
    """Tell whether something listens on `port` of loopback."""
    try:
        socket.create_connection((HOST, port), timeout=_MOST_PATIENCE_SECONDS).close()
    except OSError:
        return False
    return True


def _version(endpoint: LoopbackEndpoint, timeout: float) -> str | None:
    """Return OpenCode's version, empty where it wants a password, None if it does not answer yet."""
    try:
        status, body = endpoint.get("/global/health", timeout=timeout)
    except Unanswered:
        return None
    if status == 401:
        return ""
    return _version_in(body) if status == 200 else None


def _version_in(body: bytes) -> str:
    try:
        value = json.loads(body)["version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""
