"""Many scripted OpenCode instances, each on a port of its own, in one separate process; they register themselves.

`FakeFleet` starts the process and controls it: one JSON object a line on its stdin, one answer a line on its
stdout. It ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import uvicorn

from support.fleet.registry import register, registration
from support.opencodes.fake_instance import FakeInstance, application
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class FakeFleet:
    """A fleet whose members register in `registry_dir`; a context manager.

    `inside` is the prefix of the network namespace that it lives in.
    """

    def __init__(self, registry_dir: Path, *, inside: tuple[str, ...] = ()) -> None:
        self.registry_dir = registry_dir
        self._inside = inside
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [*self._inside, sys.executable, "-m", "support.opencodes.fake_fleet", str(self.registry_dir)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def add(self, count: int, *, sessions: int = 1, hung: bool = False) -> dict[str, int]:
        """Start `count` instances, register them, and return their ports by name.

        Each has `sessions` sessions. A `hung` one accepts connections and never answers.
        """
        ports: dict[str, int] = self._ask(command="add", count=count, sessions=sessions, hung=hung)
        return ports

    def end_streams(self) -> None:
        """End all event streams of all instances at once."""
        self._ask(command="end_streams")

    def be_busy(self, *, busy: bool) -> None:
        """Have one session of every instance begin or end a turn, all at once."""
        self._ask(command="be_busy", busy=busy)

    def storm(self, *, per_second: float) -> None:
        """Have every instance tell so many events a second from now on, spread evenly; 0 ends it."""
        self._ask(command="storm", per_second=per_second)

    def _ask(self, **request: object) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the fleet's process ended; its stderr says why"
        return json.loads(answer)


class QuietServer(uvicorn.Server):
    """A server among several in one process, none of which may take the signals for itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals alone."""
        yield


class _Fleet:
    """The process's side."""

    def __init__(self, registry_dir: Path) -> None:
        self._registry_dir = registry_dir
        self._instances: dict[int, FakeInstance] = {}
        self._application = application(self._instances)
        self._keep: list[object] = []
        self._storm: asyncio.Task[None] | None = None

    async def handle(self, request: dict[str, Any]) -> object:
        """Carry out one command and return its answer."""
        if request["command"] == "end_streams":
            for instance in self._instances.values():
                instance.end_streams()
            return None
        if request["command"] == "be_busy":
            for instance in self._instances.values():
                instance.be_busy(busy=request["busy"])
            return None
        if request["command"] == "storm":
            if self._storm is not None:
                self._storm.cancel()
            self._storm = asyncio.create_task(self._tell(request["per_second"])) if request["per_second"] else None
            return None
        sockets = [_listener() for _ in range(request["count"])]
        if request["hung"]:
            self._keep += [await asyncio.start_server(_never_answer, sock=listener) for listener in sockets]
        else:
            await self._serve(sockets, request["sessions"])
        kind = "hung" if request["hung"] else "fake"
        ports = [listener.getsockname()[1] for listener in sockets]
        named = {f"{kind}-{port}": port for port in ports}
        for name, port in named.items():
            register(self._registry_dir, registration(name, port, cwd=_directory(port)))
        return named

    async def _serve(self, sockets: list[socket.socket], sessions: int) -> None:
        for listener in sockets:
            port = listener.getsockname()[1]
            instance = FakeInstance(port, _directory(port))
            for number in range(sessions):
                instance.add_session(f"Session {number} of the instance on {port}")
            self._instances[port] = instance
        server = QuietServer(uvicorn.Config(self._application, log_level="warning", lifespan="off"))
        self._keep.append(asyncio.create_task(server.serve(sockets)))
        await eventually_async(lambda: server.started, "the fleet's server")

    async def _tell(self, per_second: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for instance in list(self._instances.values()):
                instance.touch()
                # What could not be told in time is left out: a flood would hold up the answers to all calls.
                due = max(due + 1 / per_second / len(self._instances), loop.time())
                await asyncio.sleep(due - loop.time())


def _directory(port: int) -> str:
    return f"/home/fake/project-{port}"


def _listener() -> socket.socket:
    # With the protocol left to chance, asyncio does not see TCP, sets no TCP_NODELAY, and answers take 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    return listener


async def _never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()  # named here, as a writer that nobody holds closes its connection from Python 3.13 on


async def _main(registry_dir: Path) -> None:
    # Two descriptors an instance: its listener, and the stream of whoever watches it.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fleet = _Fleet(registry_dir)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await fleet.handle(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
