"""The guard of one run, and where it listens: a socket that ssh leads to, or a port that asks for a key."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_connected.errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_connected.guard.opening import OpensDirectories
    from opencode_connected.guard.policy import Policy
    from opencode_connected.guard.server import Guard
    from opencode_connected.guard.upstream import Upstream
    from opencode_connected.settings import LauncherSettings

KEY_USER = "opencode"
_OWN_PLACE = "opencode-relay-"
"""How a directory begins that is made for one socket."""
_MAX_SOCKET_BYTES = 100
"""Of its path: Linux allows 107, macOS 103."""


class AgentDoor:
    """Where the guard of one run is reached. Made without effort: a person waits for OpenCode."""

    def __init__(
        self, settings: LauncherSettings, *, use_relay: bool, instance_id: str, password: tuple[str, str] | None
    ) -> None:
        """`password`: user and password that the person set for OpenCode; the guard then asks for these."""
        self._password = password
        self.key: str | None = None if use_relay or password else os.urandom(24).hex()
        """What a reader of the local registry must show; None if it needs no key of ours."""
        self.socket: Path | None = _socket(settings, instance_id) if use_relay else None
        """Where ssh finds the guard; None without a relay."""
        self._guard: Guard | None = None

    async def open(
        self,
        upstream: Upstream,
        policy: Callable[[], Policy],
        log: Callable[[str], None],
        opener: OpensDirectories | None = None,
    ) -> int | None:
        """Listen, and nowhere else any more; return the port, or None for a socket.

        `opener` opens directories for who asks from afar; None where that cannot be.

        Raises `LauncherError` if there is no place to listen at.
        """
        from opencode_connected.guard.server import Guard  # noqa: PLC0415 - heavy: OpenCode starts meanwhile

        await self._shut()
        self._guard = Guard(upstream, policy, log=log, opener=opener)
        try:
            if self.socket is None:
                return await self._guard.listen_on_port(self._password or (KEY_USER, self.key or ""))
            self.socket.unlink(missing_ok=True)
            await self._guard.listen_on_socket(self.socket, self._password)
        except OSError as error:
            where = self.socket or "a free port"
            raise LauncherError(f"the guard cannot listen on {where}: {error.strerror or error}") from error
        return None

    async def close(self) -> None:
        """Listen no more, and end what is under way."""
        await self._shut()
        if self.socket:
            with suppress(OSError):
                self.socket.unlink(missing_ok=True)
                if self.socket.parent.name.startswith(_OWN_PLACE):
                    self.socket.parent.rmdir()

    async def _shut(self) -> None:
        if self._guard:
            await self._guard.close()
            self._guard = None


def _socket(settings: LauncherSettings, instance_id: str) -> Path:
    """Return a path in a directory that is this user's alone, short enough for a socket."""
    name = f"{instance_id[:16]}.sock"
    runtime = settings.environment.get("XDG_RUNTIME_DIR", "")
    places = [Path(runtime, "opencode-relay")] if runtime.startswith("/") else []
    for place in (*places, settings.state_dir / "guard"):
        path = place / name
        if len(os.fsencode(path)) <= _MAX_SOCKET_BYTES and ":" not in str(path) and _is_private(place):
            return path
    try:
        return Path(tempfile.mkdtemp(prefix=_OWN_PLACE), name)
    except OSError as error:
        raise LauncherError(f"there is no place for the guard's socket: {error.strerror}: free space") from error


def _is_private(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
