"""A launcher that is nothing but a line, as a process of its own: in a network namespace, or to be killed.

`LineProgram` starts it and follows its events; run as a program, this module is it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Self

from support.line.fake_traffic import FakeTraffic
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from opencode_connected.line.state import LineEvent


@dataclass(frozen=True)
class Event:
    """One event of the keeper's."""

    at: float
    """By `time.monotonic`, which all processes of a machine share."""
    kind: str
    text: str
    state: dict[str, Any]
    """The keeper's state then."""


class LineProgram:
    """The process, from the outside."""

    def __init__(
        self,
        ssh_command: str,
        registry_dir: Path,
        *,
        name: str = "laptop-api",
        name_is_default: bool = False,
        instance_id: str = "0123456789abcdef0123456789abcdef",
        ports: Iterable[int] = (),
        inside: tuple[str, ...] = (),
    ) -> None:
        self.events: list[Event] = []
        options = {
            "ssh_command": ssh_command,
            "registry_dir": str(registry_dir),
            "name": name,
            "name_is_default": name_is_default,
            "instance_id": instance_id,
            "ports": list(ports),
        }
        self._process = subprocess.Popen(
            [*inside, sys.executable, "-m", "support.line.line_program", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()

    @property
    def pid(self) -> int:
        """Of the program itself (`ip netns exec` becomes it)."""
        return self._process.pid

    def wait_for(self, kind: str, *, since: float = 0.0, within: float = 30.0) -> Event:
        """Return the first event of this kind that came after `since`."""

        def look() -> Event | None:
            assert self._process.poll() is None, "the line program ended"
            return next((event for event in self.events if event.kind == kind and event.at > since), None)

        found = eventually(look, f"an event {kind!r}", within=within)
        assert found is not None
        return found

    def tell(self, what: str) -> None:
        """`health N`: what OpenCode answers from now on; `bye`: end as a launcher does."""
        assert self._process.stdin is not None
        self._process.stdin.write(what.encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> int:
        """End it as a launcher ends; return its exit status."""
        self.tell("bye")
        status = self._process.wait()
        self._finish()
        return status

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        self._process.wait()
        self._finish()

    def _finish(self) -> None:
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self, output: IO[bytes]) -> None:
        for line in output:
            self.events.append(Event(**json.loads(line)))


async def _main(options: dict[str, Any]) -> None:
    # Here, not above: tests that only start the program need none of it.
    from opencode_connected.line.command import LineSettings  # noqa: PLC0415
    from opencode_connected.line.keeper import LineKeeper  # noqa: PLC0415
    from opencode_connected.registration import OwnRegistration, now_utc  # noqa: PLC0415

    with FakeTraffic() as opencode:
        settings = LineSettings(
            options["ssh_command"],
            options["registry_dir"],
            tuple(options["ports"]),
            opencode.port,
            options["instance_id"],
        )

        def tell(event: LineEvent) -> None:
            state = {key: value for key, value in vars(keeper.state).items() if key != "history"}
            line = {"at": time.monotonic(), "kind": event.kind, "text": event.text, "state": state}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

        keeper = LineKeeper(settings, tell, opencode.healthy)
        await keeper.start()
        registration = OwnRegistration(
            name=options["name"],
            hostname="laptop",
            port=opencode.port,
            local_port=opencode.port,
            cwd="/home/ann/api",
            connected_at=now_utc(),
        )
        registering = asyncio.create_task(keeper.register(registration, name_is_default=options["name_is_default"]))
        while (command := await asyncio.to_thread(sys.stdin.readline)) not in ("", "bye\n"):
            opencode.status = int(command.removeprefix("health "))
        registering.cancel()
        await keeper.close()


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
