"""One line for all launchers of OpenCode 2 that a user has on a machine: whoever has the lock holds it.

The kernel gives the lock back however its holder ends, and the next launcher has it within half a second.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from opencode_connected.settings import LauncherSettings

_TRY_SECONDS = 0.25


def line_key(settings: LauncherSettings, *, use_relay: bool) -> str:
    """Return what tells this line from others of the user: where it is registered. 16 hex digits."""
    # An enrolled machine has one relay, whose address may change while launchers run.
    relay = str(settings.key_file) if settings.is_enrolled else settings.relay_ssh_cmd
    where = (socket.gethostname(), settings.registry_dir, relay if use_relay else None)
    return hashlib.sha256(repr(where).encode(errors="surrogateescape")).hexdigest()[:16]


@asynccontextmanager
async def line_lock(state_dir: Path, key: str, on_wait: Callable[[], None]) -> AsyncIterator[None]:
    """Wait for the lock of the line `key`, as long as it takes, and hold it.

    `on_wait` is called once if another launcher has it. Raises `OSError` if there can be no lock in `state_dir`.
    """
    descriptor = _open(state_dir / f"line-{key}.lock")
    is_first = True
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if is_first:
                    on_wait()
                is_first = False
                await asyncio.sleep(_TRY_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
