"""OpenCode 1 as a program: what may be passed on to it, on which port, and whose that port is."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_connected.agents.listening import addresses
from opencode_connected.errors import LauncherError, UsageError
from opencode_connected.loopback import HOST

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

LOCAL_PORTS = range(4096, 5096)
_REFUSED = {
    "port": "the launcher chooses the port, since it must know where OpenCode answers",
    "mdns": "it would make OpenCode listen for the whole network",
    "mini": "the minimal interface starts no server that could be driven",
    "hostname": f"OpenCode must listen on {HOST} only; whoever reaches it has a shell on this machine",
}
_FLAG = re.compile(r"--([a-z]+)(?:=(.*))?", re.DOTALL)
_LOOPBACK_NAMES = (HOST, "localhost")


class PortTaken(Exception):
    """Another program listens on the port that OpenCode was given, so OpenCode never will."""


def checked_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments to pass on; `UsageError` for one that would move OpenCode's server.

    A `--hostname` that means loopback is left out: the launcher gives its own.
    """
    passed_on: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*passed_on, argument, *rest]
        flag = _FLAG.fullmatch(argument)
        name = flag[1] if flag else ""
        if flag and name == "hostname" and (flag[2] if flag[2] is not None else next(rest, "")) in _LOOPBACK_NAMES:
            continue
        if name in _REFUSED:
            raise UsageError(f"--{name} cannot be passed on: {_REFUSED[name]}")
        passed_on.append(argument)
    return passed_on


def command(binary: str, port: int, arguments: Sequence[str], *, headless: bool) -> list[str]:
    """Return the command line that starts OpenCode on `port` of loopback.

    All three are on the command line because a value there beats the user's OpenCode configuration.
    """
    serve = ["serve"] if headless else []
    return [binary, *serve, "--port", str(port), "--hostname", HOST, "--no-mdns", *arguments]


def free_port(tried: Collection[int] = ()) -> int:
    """Return a free port of `LOCAL_PORTS` that is not among `tried`.

    The search begins anywhere, so that launchers started together rarely choose the same port.
    """
    begin = int.from_bytes(os.urandom(4), "big") % len(LOCAL_PORTS)
    ports: list[int] = [*LOCAL_PORTS[begin:], *LOCAL_PORTS[:begin]]
    for port in ports:
        if port not in tried and is_free(port):
            return port
    raise LauncherError(f"no free port in {LOCAL_PORTS[0]}-{LOCAL_PORTS[-1]}: end an OpenCode that is not needed")


def is_free(port: int) -> bool:
    """Tell whether nothing listens on `port` of loopback."""
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def working_directory(pid: int) -> str | None:
    """Return the current directory of process `pid`, None if it cannot be told."""
    import psutil  # noqa: PLC0415 - see `listening_process`

    try:
        return str(psutil.Process(pid).cwd()) or None
    except psutil.Error:
        return None


def listening_process(pid: int, port: int) -> tuple[int, frozenset[str]] | None:
    """Return who of process `pid` and its descendants listens on `port`, and at which addresses; None if nobody.

    Descendants count because some installations start the real program from a script.
    """
    import psutil  # noqa: PLC0415 - 35 ms; asked only when OpenCode has come up

    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return None
    for process in family:
        with suppress(psutil.Error):
            if found := addresses(process, port):
                return process.pid, found
    return None
