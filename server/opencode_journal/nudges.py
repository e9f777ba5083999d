"""Datagrams by which the copies of the server that share a directory tell each other that there is something new."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PATTERN: Final = "journal-*.nudge"
_log = logging.getLogger(__name__)


class Nudges:
    """One socket for each copy that listens. They are a hint: whoever misses one looks once a second.

    Args:
        directory: of this account alone; None: there is nobody else.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._own: Path | None = None
        self._is_due = False

    @contextmanager
    def listening(self, on_nudge: Callable[[], None]) -> Iterator[None]:
        """Call `on_nudge` in the event loop when another copy has told of something."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.setblocking(False)
            if not self._bind(listener):
                yield
                return
            loop = asyncio.get_running_loop()
            loop.add_reader(listener, _drain, listener, on_nudge)
            try:
                yield
            finally:
                loop.remove_reader(listener)
                if self._own is not None:
                    self._own.unlink(missing_ok=True)
                self._own = None

    def _bind(self, listener: socket.socket) -> bool:
        if self._directory is None:
            return False
        path = self._directory / f"journal-{secrets.token_hex(4)}.nudge"
        try:
            listener.bind(os.fspath(path))
        except OSError as error:
            # No such directory, or a path beyond the hundred bytes that an address may have.
            _log.info("no nudges in %s: %s", self._directory, error)
            return False
        self._own = path
        return True

    def send(self) -> None:
        """Tell the others: soon, and once for all that is written until then."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._send()
            return
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._send)

    def _send(self) -> None:
        self._is_due = False
        if self._directory is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for path in self._directory.glob(_PATTERN):
                if path == self._own:
                    continue
                try:
                    sender.sendto(b"\0", os.fspath(path))
                except ConnectionRefusedError:
                    # Its copy was killed.
                    path.unlink(missing_ok=True)
                except OSError as error:
                    # It is gone, or has more waiting than it can read.
                    _log.debug("no nudge to %s: %s", path, error)


def _drain(listener: socket.socket, on_nudge: Callable[[], None]) -> None:
    with suppress(BlockingIOError):
        while True:
            listener.recv(16)
    on_nudge()
