"""Which of several copies of the server does what must happen once: whoever has a lock of the kernel's.

The kernel gives the lock back however its holder ends, and the next copy has it within half a second.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from opencode_common.database import make_private_directory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FILE_NAME: Final = "leader.lock"
_TRY_SECONDS: Final = 0.25
_log = logging.getLogger(__name__)


class Leader:
    """What one copy has to do with it.

    Args:
        directory: the journal's. None: there are no other copies, and this one leads.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / FILE_NAME
        self._descriptor: int | None = None
        self.is_leader = False
        """Whether this copy leads."""
        self.trouble = ""
        """Why nobody can be elected here, in one line; empty while it is another copy that leads, or this one."""

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """Stand for election meanwhile, and step down at the end."""
        self.look()
        task = asyncio.create_task(self._keep_looking())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._step_down()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_TRY_SECONDS)
            self.look()

    def look(self) -> None:
        """Lead if nobody else does; step down if our lock is on a file that was removed, as another may lead now."""
        if self._path is None:
            self.is_leader = True
            return
        try:
            if self._descriptor is not None and not _is_at(self._descriptor, self._path):
                self._step_down()
            if self._descriptor is None:
                self._descriptor = _locked(self._path)
        except BlockingIOError:
            self.trouble = ""
        except OSError as error:
            self._say(f"{self._path} cannot be locked: {error.strerror}; set RELAY_STATE_DIR to a local directory")
        else:
            self.trouble = ""
            self.is_leader = True

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            _log.warning("no copy of the server leads: %s", trouble)
        self.trouble = trouble

    def _step_down(self) -> None:
        self.is_leader = False
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _locked(path: Path) -> int:
    """Return a descriptor with the lock. Raises `BlockingIOError` if another has it, `OSError` if nobody can."""
    make_private_directory(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(descriptor, path):
            # It was removed between the two: whoever comes next locks another file.
            raise BlockingIOError
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
