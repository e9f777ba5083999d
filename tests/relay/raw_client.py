"""A client that says what it is told to say, over a real ssh: what a stolen key could do."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from functools import cached_property
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    from relay.provisioned import ProvisionedRelay

ID = "0123456789abcdef0123456789abcdef"
OTHER_ID = "f" * 32
BEAT = {"type": "pong", "n": 0, "health": "unverified"}
"""The relay's sign of life that nobody asked for."""
_OPTIONS = ("-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=5")


class RawClient:
    """One ssh of client `name`. `forward`: the relay's port that leads to `to`, a port here.

    with RawClient(relay, "laptop", forward=10001, to=opencode.port) as client:
        assert client.first["client"] == "laptop"
        assert client.ask(hello(port=10001))["type"] == "registered"
    """

    def __init__(
        self, relay: ProvisionedRelay, name: str, *options: str, forward: int | None = None, to: int = 0
    ) -> None:
        tunnel = ["-R", f"127.0.0.1:{forward}:127.0.0.1:{to}"] if forward else []
        self.process = subprocess.Popen(
            [*shlex.split(relay.ssh_command(name)), *_OPTIONS, *options, *tunnel, "true"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._lines: Queue[bytes | None] = Queue()
        self._errors: list[bytes] = []
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.wait()

    @cached_property
    def first(self) -> dict[str, Any]:
        """The relay's first message: `ready`, or why not."""
        return self.receive()

    def send(self, line: bytes) -> None:
        """Send it as it is, with a newline."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def receive(self, within: float = 30.0) -> dict[str, Any]:
        """Return the next message that is no beat; fails when the connection ends instead."""
        message = BEAT
        while message == BEAT:
            message = self.receive_any(within)
        return message

    def receive_any(self, within: float = 30.0) -> dict[str, Any]:
        """Return the next message, be it a beat."""
        try:
            line = self._lines.get(timeout=within)
        except Empty:
            raise AssertionError("the relay says nothing") from None
        assert line is not None, f"the connection ended: {self.errors}"
        message: dict[str, Any] = json.loads(line)
        return message

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message, once the relay has begun, and return the answer."""
        assert self.first
        self.send(json.dumps(message).encode())
        return self.receive()

    def wait(self) -> int:
        """Wait for the end of the connection and return ssh's exit status."""
        status = self.process.wait(60)
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # what was never taken
                continue
        return status

    @property
    def errors(self) -> str:
        """What ssh said on stderr."""
        return b"".join(self._errors).decode()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)


def hello(*, port: int, name: str = "laptop-api", instance_id: str = ID, **fields: object) -> dict[str, Any]:
    """Return the request to register; `fields` change the file."""
    file = {
        "name": name,
        "hostname": "ann.example",
        "port": port,
        "localPort": 4096,
        "cwd": "/home/ann/api",
        "connectedAt": "2026-11-24T16:00:00Z",
    }
    return {"type": "hello", "v": 1, "id": instance_id, "file": {**file, **fields}}
