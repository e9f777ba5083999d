"""One run of the relay program, without ssh around it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

from client.line.conftest import INSTANCE_ID
from opencode_connected.line import protocol

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from opencode_connected.registration import OwnRegistration


OTHER_ID = "f" * 32
"""Of another instance than `INSTANCE_ID`."""
BEAT = {"type": "pong", "n": 0, "health": "unverified"}
BASICS = ["cat", "date", "grep", "head", "id", "ls", "mkdir", "mv", "ps", "rm", "sed", "sleep", "tr"]
"""What the program cannot do without."""


class Program:
    """One run of the relay program: what the launcher sends, and what comes back."""

    def __init__(self, directory: Path | str, shell: str = "dash", *, path: str | None = None) -> None:
        nonce = "0123456789abcdef" * 2
        script = shlex.split(protocol.loader(nonce).removeprefix("exec "))[2]
        self.process = subprocess.Popen(
            [*shlex.split(shell), "-c", script],
            executable=shutil.which(shlex.split(shell)[0]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
            env={"PATH": path or os.environ["PATH"], "SSH_CONNECTION": "192.0.2.7 50000 192.0.2.10 22"},
        )
        self.beats = 0
        """Signs of life so far that nobody asked for."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"\n"
        assert protocol.asks_for_program(self.process.stdout.readline().rstrip(b"\n"), nonce)
        self.send(protocol.program(str(directory)))
        self.ready = self.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline()
            assert line, "the relay program ended"
            message = json.loads(line)
            assert isinstance(message, dict)
            assert protocol.decode(line.strip()) is not None, f"not what the launcher understands: {line!r}"
            if message != BEAT:
                return message
            self.beats += 1

    def ask(self, line: bytes) -> dict[str, Any]:
        self.send(line)
        return self.receive()

    def register(self, what: OwnRegistration, instance_id: str = INSTANCE_ID) -> dict[str, Any]:
        return self.ask(protocol.hello(instance_id, what))

    def is_gone(self) -> bool:
        """Tell whether not one process of this run is left."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def end(self) -> int:
        """Close its input, as the death of the launcher does; return its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait()


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def bin_with(directory: Path, tools: list[str], basics: list[str] = BASICS) -> str:
    """Make a PATH that holds only what a bare system has, and `tools`. `busybox:nc`: busybox under that name."""
    directory.mkdir()
    for tool in [*basics, *tools]:
        program, _, applet = tool.partition(":")
        where = shutil.which(program)
        assert where is not None, f"{program} must be installed for this test"
        (directory / (applet or program)).symlink_to(where)
    return str(directory)
