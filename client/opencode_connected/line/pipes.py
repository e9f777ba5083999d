"""What comes out of ssh: the relay's messages, and the words of ssh, shells and wrappers around them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from opencode_connected.line import protocol
from opencode_connected.line.ssh_errors import is_login

if TYPE_CHECKING:
    from opencode_connected.line.beginning import Beginning

_WRAPPER_SECONDS: Final = 1.0
"""The end of ssh's stdout to the end of a wrapper around it."""
_DRAIN_SECONDS: Final = 0.2
"""The end of ssh to the end of its pipes, which a child of a wrapper may hold."""
_STDERR_LINES: Final = 200
_NOISE_LINES: Final = 20
"""Of stdout: why there is no shell is said there."""


class Listener(Protocol):
    """Whoever started ssh."""

    def heard(self) -> None:
        """Take note of bytes from the relay, whatever they are."""

    def received(self, message: protocol.RelayMessage) -> None:
        """Take a message."""

    def asked(self) -> None:
        """Send the relay program: it was asked for."""

    def over(self, pipes: Pipes) -> None:
        """Take note that the ssh of `pipes` has ended, or its output has."""


class Pipes(asyncio.SubprocessProtocol):
    """Takes ssh's output apart as it comes, so that stderr is never later than the stdout that followed it."""

    def __init__(self, connection: Listener, beginning: Beginning) -> None:
        self._connection = connection
        self._beginning = beginning
        self._loop = asyncio.get_running_loop()
        self._stdout = protocol.LineSplitter()
        self._stderr = protocol.LineSplitter()
        self.noise: deque[str] = deque(maxlen=_NOISE_LINES)
        """The last lines of stdout that are no messages."""
        self.stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        """Its last lines."""
        self.stderr_came = asyncio.Event()
        """There is more of it."""
        self.exited = asyncio.Event()
        """ssh has ended."""

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take what ssh wrote."""
        if fd == 1:
            self._connection.heard()
            for line in self._stdout.feed(data):
                self._said(line)
        else:
            lines = [_text(line) for line in self._stderr.feed(data)]
            self.stderr.extend(lines)
            self.stderr_came.set()
            if any(map(is_login, lines)):
                self._beginning.logged_in()

    def _said(self, line: bytes) -> None:
        message = protocol.decode(line)
        if message is None and not self._beginning.is_over:
            message, before = protocol.decode_first(line)
            self.noise += [_text(before)] if message else []
        if message:
            self._beginning.end()
            self._connection.received(message)
        elif not self._beginning.is_over and protocol.asks_for_program(line, self._beginning.nonce):
            self._beginning.end()
            self._connection.asked()
        else:
            self.noise.append(_text(line))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Take note of the end of a pipe."""
        del exc
        if fd == 1:  # ssh is about to end; a wrapper may not be
            self._loop.call_later(_WRAPPER_SECONDS, self._connection.over, self)

    def process_exited(self) -> None:
        """Take note of ssh's end; its last words may be on their way."""
        self.exited.set()
        self._loop.call_later(_DRAIN_SECONDS, self._connection.over, self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that there will be nothing more."""
        del exc
        self._connection.over(self)


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")
