"""Notices within half a second, and without sending a packet, that the way to the relay changed or the machine slept.

A UDP socket that is connected to the relay has as its own address the one that packets to the relay would leave from.

While the relay is late with a sign of life, and only then, its name is looked up as well: it may have moved.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import psutil

from opencode_connected.line.command import ssh_words

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_SECONDS: Final = 0.5
_OFFLINE_LOOK_SECONDS: Final = 0.2
_LATE_LOOK_SECONDS: Final = 0.25
_RESOLVE_SECONDS: Final = 5.0
_RESOLVE_AGAIN_SECONDS: Final = 0.5
"""A relay that moved is noticed within 5 s: it is late after 3 s, and two look-ups have to agree."""
_ASLEEP_SECONDS: Final = 5.0
"""By which the wall clock ran ahead of the monotonic one, which then stands still. Setting it costs a reconnect."""


@dataclass(frozen=True)
class _Target:
    family: int
    address: tuple[str, int]


# Addresses for documentation, routed nowhere but by the default route.
_DEFAULT_ROUTE: Final = (
    _Target(socket.AF_INET, ("192.0.2.1", 9)),
    _Target(socket.AF_INET6, ("2001:db8::1", 9)),
)


class NetworkChange(Enum):
    """Why a connection of before is likely dead. Going offline is no reason, as it may pass."""

    SLEPT = "this machine slept"
    ONLINE = "this machine is back on the network"
    ADDRESS = "this machine's address changed"
    ELSEWHERE = "the relay's name leads to another address now"


class NetWatch:
    """Calls `on_change` whenever a connection of before is likely dead.

    What is watched is the way to the relay where the
    prefix is an ssh that connects directly, else the default route.
    """

    def __init__(
        self, ssh_command: str, on_change: Callable[[NetworkChange], None], late_ssh: Callable[[], int | None]
    ) -> None:
        """Raises `LineError` if the prefix is no command.

        `late_ssh`: the process of the ssh whose relay should have been heard of by now, or None.
        """
        self._words = ssh_words(ssh_command)
        self._on_change = on_change
        self._late_ssh = late_ssh

    async def run(self) -> None:
        """Watch until cancelled."""
        host = await _direct_host(self._words)
        if host is None:
            await self._watch_way(None)
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_way(host))
            group.create_task(self._watch_name(host))

    async def _watch_way(self, host: str | None) -> None:
        while True:
            targets = await _resolve(host) if host else ()
            self._on_change(await _until_changed(targets or _DEFAULT_ROUTE))

    async def _watch_name(self, host: str) -> None:
        # A name of many addresses may lead to another one each time, and a late relay may only be late.
        before = None
        while True:
            await asyncio.sleep(_LATE_LOOK_SECONDS)
            ssh = self._late_ssh()
            if ssh is None or not (peers := _peers(ssh)):
                before = None
                continue
            known = {target.address[0].partition("%")[0] for target in await _resolve(host)}
            is_elsewhere = known and not known & peers and self._late_ssh() == ssh
            if is_elsewhere and before == (ssh, known):
                self._on_change(NetworkChange.ELSEWHERE)
            before = (ssh, known) if is_elsewhere else None
            await asyncio.sleep(_RESOLVE_AGAIN_SECONDS)


async def _until_changed(targets: tuple[_Target, ...]) -> NetworkChange:
    known = _sources(targets)
    was_offline = not any(known)
    lag = time.time() - time.monotonic()
    while True:
        await asyncio.sleep(_OFFLINE_LOOK_SECONDS if was_offline else _LOOK_SECONDS)
        slept = time.time() - time.monotonic() - lag
        if slept > _ASLEEP_SECONDS:
            return NetworkChange.SLEPT
        lag += slept  # a clock that is slewed adds up to nothing
        now = _sources(targets)
        if not any(now):
            was_offline = True
        elif was_offline:
            return NetworkChange.ONLINE
        elif any(old and new != old for old, new in zip(known, now, strict=True)):
            return NetworkChange.ADDRESS
        else:
            known = now


def _sources(targets: tuple[_Target, ...]) -> tuple[str | None, ...]:
    return tuple(_source(target) for target in targets)


def _source(target: _Target) -> str | None:
    try:
        with socket.socket(target.family, socket.SOCK_DGRAM) as udp:
            udp.connect(target.address)
            return str(udp.getsockname()[0])
    except OSError:  # no route: offline, or no such protocol here
        return None


def _peers(pid: int) -> set[str]:
    """Return the addresses that a process is connected to; none where that cannot be told."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return set()
    return {connection.raddr.ip for connection in connections if connection.status == psutil.CONN_ESTABLISHED}


async def _resolve(host: str) -> tuple[_Target, ...]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[_Target, ...]] = loop.create_future()

    def tell(targets: tuple[_Target, ...]) -> None:
        if not answer.done():
            answer.set_result(targets)

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
        except OSError:
            found = []
        targets = tuple({_Target(family, (str(address[0]), 9)) for family, _, _, _, address in found})
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(tell, targets)

    # Not the loop's executor: a resolver that hangs would hold up the end of the launcher.
    threading.Thread(target=look_up, daemon=True).start()
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            return await answer
    except TimeoutError:
        return ()


async def _direct_host(words: list[str]) -> str | None:
    """Return the host that ssh itself connects to; None if that cannot be told (gcloud, a wrapper, a proxy)."""
    if PurePath(words[0]).name != "ssh":
        return None
    try:
        ssh = await asyncio.create_subprocess_exec(
            *(words[0], "-G", *words[1:]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        output, _ = await ssh.communicate()
    except asyncio.CancelledError:
        if ssh.returncode is None:
            ssh.kill()
            await ssh.wait()  # whoever ends the line may count on it
        raise
    options = dict(line.split(" ", 1) for line in output.decode(errors="replace").splitlines() if " " in line)
    proxied = {"proxyjump", "proxycommand"} & options.keys()
    return None if proxied else options.get("hostname")
