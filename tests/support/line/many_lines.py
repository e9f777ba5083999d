"""Many launchers that are nothing but their lines, in one process; or as many bare `ssh -N -R`, to compare them with.

`ManyLines` starts the process and has it start more and more of them; run as a program, this module is it. Each line
leads to a port of this machine, where something answers for OpenCode. It ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from types import TracebackType

    from opencode_connected.line.command import LineSettings

Kind = Literal["launcher", "bare"]


@dataclass(frozen=True)
class Line:
    """What one line is made of."""

    ssh_command: str
    ports: tuple[int, ...]
    """The relay's ports that it may listen on; a bare one takes the first."""
    local_port: int
    name: str
    instance_id: str


class ManyLines:
    """The process, from the outside; a context manager. `inside`: the prefix of the network namespace it lives in."""

    def __init__(self, kind: Kind, *, inside: tuple[str, ...] = ()) -> None:
        self._process = subprocess.Popen(
            [*inside, sys.executable, "-m", "support.line.many_lines", kind],
            stdin=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(self, lines: list[Line]) -> None:
        """Have these started, all at once. They keep themselves."""
        assert self._process.poll() is None, "the lines' process ended; its stderr says why"
        assert self._process.stdin is not None
        print(json.dumps([asdict(line) for line in lines]), file=self._process.stdin, flush=True)


def _settings(line: Line) -> LineSettings:
    # Here, not above: whoever only starts the program needs none of it.
    from opencode_connected.line.command import LineSettings  # noqa: PLC0415

    return LineSettings(line.ssh_command, "unused", line.ports, line.local_port, line.instance_id)


async def _launcher(line: Line) -> None:
    """Keep a line as a launcher does."""
    from opencode_connected.line.keeper import LineKeeper  # noqa: PLC0415
    from opencode_connected.registration import OwnRegistration, now_utc  # noqa: PLC0415

    async def healthy() -> bool:
        return True

    keeper = LineKeeper(_settings(line), lambda _event: None, healthy)
    registration = OwnRegistration(
        name=line.name,
        hostname="laptop",
        port=line.local_port,
        local_port=line.local_port,
        cwd="/home/ann/api",
        connected_at=now_utc(),
    )
    await keeper.start()
    try:
        await keeper.register(registration, name_is_default=False)
        await asyncio.Event().wait()
    finally:
        await keeper.close(clean=False)


async def _bare(line: Line) -> None:
    """Keep `ssh -N -R` running, tried again as often as a launcher would."""
    from opencode_connected.line.command import ssh_argv  # noqa: PLC0415
    from opencode_connected.line.keeper import _STABLE_SECONDS  # noqa: PLC0415
    from opencode_connected.line.retry import RetrySchedule  # noqa: PLC0415

    command = ssh_argv(_settings(line), line.ports[0], nonce="")[:-1]  # without the remote command
    command[1:1] = ["-N", "-o", "ExitOnForwardFailure=yes"]
    schedule = RetrySchedule()
    while True:
        began = time.monotonic()
        ssh = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await ssh.wait()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                ssh.terminate()
            await ssh.wait()
            raise
        if time.monotonic() - began > _STABLE_SECONDS:
            schedule.reset()
        await asyncio.sleep(schedule.delay(permanent=False))


async def _main(kind: str) -> None:
    # Three pipes an ssh.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    keep = _launcher if kind == "launcher" else _bare
    async with asyncio.TaskGroup() as group:
        tasks = []
        while text := await asyncio.to_thread(sys.stdin.readline):
            tasks += [group.create_task(keep(Line(**fields))) for fields in json.loads(text)]
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
