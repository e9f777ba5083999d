"""A run on an OpenCode 1 server that somebody else started: `opencode serve`, `opencode web`, the desktop app.

It is guarded and made reachable like one's own, and never ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opencode_connected.agents.generation import Installed, installed
from opencode_connected.agents.listening import OwnListener
from opencode_connected.agents.run import Launch, Run, cancel
from opencode_connected.bringup import accepts
from opencode_connected.errors import LauncherError, OpenCodeMissing, UsageError
from opencode_connected.loopback import LoopbackEndpoint, Unanswered
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack
    from pathlib import Path

    from opencode_connected.agents.door import AgentDoor
    from opencode_connected.presence import Presence
    from opencode_connected.settings import LauncherSettings

_REQUEST_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_GONE_SECONDS = 5.0
"""Nothing has listened for so long: whoever restarts a server takes less."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MAX_PASSWORD_BYTES = 4096
_PORT = re.compile(r"\d{1,5}")


def attach(
    settings: LauncherSettings,
    target: str,
    say: Callable[[str], None],
    *,
    password_file: Path | None,
    local: bool = False,
) -> int:
    """Make the server at `target`, a URL of this machine or a port, reachable until it is gone or a signal comes.

    Return the exit code, or minus the number of the signal. Raises `LauncherError` if it cannot be driven.
    """
    credentials = settings.opencode_credentials
    if password_file is not None:
        user = credentials[0] if credentials else settings.environment.get("OPENCODE_SERVER_USERNAME") or "opencode"
        credentials = (user, _password(password_file))
    endpoint = LoopbackEndpoint(_port(target), credentials)
    listener = OwnListener(endpoint.port)
    if not listener.is_there():
        if not accepts(endpoint.port):
            raise OpenCodeMissing(f"no OpenCode answers on port {endpoint.port}: nothing listens there")
        raise LauncherError(
            f"what listens on port {endpoint.port} is no program of yours: it was asked nothing, and got no password"
        )
    version, directory = _look_at(endpoint)
    found = installed("the server", version)
    run = AdoptedRun(settings, endpoint, listener, found, directory, local=local, say=say)
    return asyncio.run(run.run())


class AdoptedRun(Run):
    """One attachment."""

    generation = 1

    def __init__(
        self,
        settings: LauncherSettings,
        endpoint: LoopbackEndpoint,
        listener: OwnListener,
        found: Installed,
        directory: str,
        *,
        local: bool,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(settings, Launch(headless=True, local=local), found, say)
        self._endpoint = endpoint
        self._listener = listener
        self._work_in(directory)

    @property
    def _password(self) -> tuple[str, str] | None:
        return self._endpoint.credentials

    async def _go(self, at_the_end: AsyncExitStack) -> int:
        door = self._new_door()
        at_the_end.push_async_callback(door.close)
        presence = self._presence(self._wanted, door, self._healthy, self._say)
        at_the_end.push_async_callback(presence.close)
        visible = asyncio.ensure_future(self._make_visible(presence, door))
        gone = asyncio.ensure_future(self._until_it_is_gone())
        at_the_end.push_async_callback(cancel, visible)
        at_the_end.push_async_callback(cancel, gone)
        await asyncio.wait((visible, gone, self._stop), return_when=asyncio.FIRST_COMPLETED)
        if self._stop.done():
            return -self._stop.result()
        if gone.done():
            gone.result()
            self._say(f"nothing of yours listens on port {self._endpoint.port} any more: that OpenCode has ended")
            return 0
        visible.result()  # raises why it cannot be made visible
        raise AssertionError("it is visible until it is cancelled")

    async def _make_visible(self, presence: Presence, door: AgentDoor) -> None:
        from opencode_connected.agents.single import Watched  # noqa: PLC0415 - not before it is known to be there
        from opencode_connected.registration import OwnRegistration, now_utc  # noqa: PLC0415

        port = self._endpoint.port
        self._report.opencode(None, port)
        server = Watched(self._endpoint, self._settings.rights, self._listener)
        guard_port = await door.open(server, server.policy, self._log)
        server.answers(self._installed.version, self._cwd, self._wanted.name)
        await presence.prepare()
        wanted = OwnRegistration(
            name=self._wanted.name,
            hostname=self._hostname,
            port=guard_port or port,
            local_port=port,
            cwd=self._cwd,
            connected_at=now_utc(),
        )
        registered = await presence.register(wanted)
        server.answers(self._installed.version, self._cwd, registered.name)
        self._report.registered(registered, self._installed.version)
        self._say(f"{registered.name!r} is registered: the OpenCode on port {port}, in {self._cwd}")
        await self._keep(presence)

    async def _healthy(self) -> bool:
        return await self._is_there() and await asyncio.to_thread(_status, self._endpoint) in (200, 401)

    async def _is_there(self) -> bool:
        return await self._listener.is_there_now()

    async def _until_it_is_gone(self) -> None:
        seen = time.monotonic()
        while time.monotonic() - seen < _GONE_SECONDS:
            await asyncio.sleep(_LOOK_SECONDS)
            if await self._is_there() and await asyncio.to_thread(accepts, self._endpoint.port):
                seen = time.monotonic()


def _port(target: str) -> int:
    """Return the port that `target` means; `UsageError` if it is not on this machine's loopback."""
    if _PORT.fullmatch(target):
        port: int | None = int(target)
    else:
        try:
            parts = urlsplit(target)
            port = parts.port
        except ValueError:
            port = None
        else:
            if parts.scheme != "http" or parts.hostname not in _LOOPBACK or parts.username or parts.password:
                raise UsageError(
                    f"{target!a} cannot be attached: give a port, or http://127.0.0.1:PORT; only a server on this "
                    "machine can, and its password comes from OPENCODE_SERVER_PASSWORD or --password-file"
                )
    if port is None or not 1024 <= port <= 65535:
        raise UsageError(f"{target!a} has no port that an OpenCode could have: 1024 to 65535")
    return port


def _password(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            content = file.read(_MAX_PASSWORD_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
        raise UsageError(f"{path} can be read by others: chmod 600 {path}")
    password = content.decode(errors="replace").strip("\r\n")
    if not password or "\n" in password or len(content) > _MAX_PASSWORD_BYTES:
        raise UsageError(f"{path} must hold one line, the password")
    return password


def _status(endpoint: LoopbackEndpoint) -> int | None:
    try:
        return endpoint.get("/global/health", timeout=_REQUEST_SECONDS)[0]
    except Unanswered:
        return None


def _look_at(endpoint: LoopbackEndpoint) -> tuple[str, str]:
    """Return version and directory of the server; `LauncherError` says why it cannot be driven."""
    try:
        status, body = endpoint.get("/global/health", timeout=_REQUEST_SECONDS)
    except Unanswered as error:
        raise OpenCodeMissing(f"no OpenCode answers on port {endpoint.port}: {printable(str(error))}") from error
    if status == 401:
        raise LauncherError(
            f"the OpenCode on port {endpoint.port} wants another password: set OPENCODE_SERVER_PASSWORD as it was "
            "set when it started, or use --password-file"
        )
    version = _text(body, "version") if status == 200 else None
    if version is None:
        raise OpenCodeMissing(
            f"what answers on port {endpoint.port} is no OpenCode 1",
            "OpenCode 2's service needs no attaching: opencode-connected --headless",
        )
    try:
        _, body = endpoint.get("/path", timeout=_REQUEST_SECONDS)
    except Unanswered as error:
        raise OpenCodeMissing(
            f"the OpenCode on port {endpoint.port} does not tell where it works: {error}"
        ) from error
    directory = _text(body, "directory")
    if directory is None or not directory.startswith("/"):
        raise OpenCodeMissing(f"the OpenCode on port {endpoint.port} does not tell where it works")
    return version, directory


def _text(body: bytes, key: str) -> str | None:
    try:
        value = json.loads(body)[key]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return value if isinstance(value, str) else None
