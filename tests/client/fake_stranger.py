"""In the place of another user's program on this machine: it listens where an OpenCode is looked for. Root only."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_USER = 65_534
_PROGRAM = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind(("127.0.0.1", int(sys.argv[1])))
listening.listen()
print("listens", flush=True)
while True:
    connection, _ = listening.accept()
    with connection:
        if heard := connection.recv(65536):
            print(heard, flush=True)
            connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{}")
"""


class FakeStranger:
    """A context manager: a process of another user that listens on `port` and writes down what it is sent."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        # It becomes that user by itself, who may not start the interpreter that tests run with.
        command = [sys.executable, "-I", "-c", _PROGRAM, str(self.port), str(_USER)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listens\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.heard()

    def heard(self) -> str:
        """End it, and return all that it was sent."""
        assert self._process is not None
        process, self._process = self._process, None
        process.kill()
        return process.communicate()[0]
