"""A server that never comes to the end of its answer: it sends a byte now and then, for as long as it is open."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

_PAUSE = 0.2
"""Seconds between two bytes: well within any patience with a silent connection."""


class FakeDripping:
    """An https server on a free loopback port; a context manager.

    It sends `beginning` at once to whoever has asked, and then `drop`, which is one byte, over and over.
    """

    def __init__(self, tls: ssl.SSLContext, beginning: bytes, drop: bytes) -> None:
        self._tls = tls
        self._beginning, self._drop = beginning, drop
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._is_closed = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                plain, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(plain,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError), plain, self._tls.wrap_socket(plain, server_side=True) as connection:
            connection.recv(4096)
            for part in chain([self._beginning], repeat(self._drop)):
                connection.sendall(part)
                if self._is_closed.wait(_PAUSE):
                    return
