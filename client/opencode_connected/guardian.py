"""The dead man's switch: a process that cleans up when the launcher is killed and cannot do it itself.

It runs as a script of its own (`python -IS guardian.py`), so that it is small and starts fast, in a session of its
own, so that no terminal's signals reach it. Its stdin is a pipe whose only writer is the launcher. The launcher
tells it, in JSON lines, what there is to clean up:

    {"opencode": {"pid": N, "port": N, "headless": false, "credentials": ["user", "password"] | null}}
    {"registration": {"directory": "…", "name": "…", "instance_id": "…"} | null}
    {"socket": "…"}
    {"done": true}

End of file without `done` means that the launcher is dead: then OpenCode is ended and the registration removed,
without a goodbye note, since nobody said goodbye.

A headless OpenCode is seen by nobody who would end it, so there is a second guardian for the case that launcher and
guardian are killed together. Its pipe has the first guardian as another writer; what is done by then costs nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

_DISPOSE_SECONDS = 3.0
_TERMINATE_SECONDS = 5.0
"""A TUI takes 0.5 s to end."""
_POLL_SECONDS = 0.05


class Guardian:
    """The launcher's end of the switch."""

    def __init__(self, *, is_doubled: bool = False) -> None:
        """`is_doubled`: there is a second one."""
        second = [_start()] if is_doubled else []
        pipes = [process.stdin.fileno() for process in second if process.stdin]
        self._processes = [_start(pipes), *second]

    def watch_opencode(self, pid: int, *, port: int, headless: bool, credentials: tuple[str, str] | None) -> None:
        """Have OpenCode, process `pid` (instead of an earlier one), ended if the launcher is killed."""
        self._tell({"opencode": {"pid": pid, "port": port, "headless": headless, "credentials": credentials}})

    def watch_registration(self, directory: Path, name: str, instance_id: str) -> None:
        """Have the registration `name` in `directory` removed if the launcher is killed."""
        self._tell({"registration": {"directory": str(directory), "name": name, "instance_id": instance_id}})

    def watch_socket(self, path: Path) -> None:
        """Have the guard's socket removed if the launcher is killed."""
        self._tell({"socket": str(path)})

    def dismiss(self) -> None:
        """End the guardian: everything is cleaned up."""
        self._tell({"done": True})
        for process in self._processes:
            if process.stdin:
                with suppress(BrokenPipeError):
                    process.stdin.close()
        for process in self._processes:
            process.wait()

    def _tell(self, message: dict[str, Any]) -> None:
        """Pass on a message. A guardian that was killed is no reason for the launcher to fail."""
        for process in self._processes:
            if process.stdin:
                with suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(message).encode() + b"\n")
                    process.stdin.flush()


def _start(pipes: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start a guardian; `pipes` are what it keeps open for as long as it lives."""
    import subprocess  # noqa: PLC0415 - the guardian process itself needs it only when it cleans up

    return subprocess.Popen(
        [sys.executable, "-IS", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        pass_fds=pipes,
    )


def _main() -> None:
    """Wait for the launcher's end, then clean up what it left."""
    sys.path.append(str(Path(__file__).parents[1]))
    opencode: dict[str, Any] | None = None
    registration: dict[str, Any] | None = None
    socket: str | None = None
    for line in sys.stdin.buffer:
        message: dict[str, Any] = json.loads(line)
        if message.get("done"):
            return
        if "opencode" in message:
            opencode = message["opencode"] | {"start": _start_of(message["opencode"]["pid"])}
        registration = message.get("registration", registration)
        socket = message.get("socket", socket)
    # First the registration: it takes milliseconds, and then no reader finds a half-dead instance.
    if registration:
        with suppress(Exception):  # whatever is wrong with the directory, OpenCode must be ended
            from opencode_connected.registry import Registry  # noqa: PLC0415 - see the module's docstring

            Registry(registration["directory"]).withdraw(registration["name"], registration["instance_id"])
    if socket:
        with suppress(OSError):
            Path(socket).unlink(missing_ok=True)
    if opencode:
        end_opencode(**opencode)


def _start_of(pid: int) -> str:
    from opencode_connected import processes  # noqa: PLC0415 - see the module's docstring

    return processes.mark_of(pid)


def end_opencode(
    *, pid: int, start: str, port: int, headless: bool, credentials: Sequence[str] | None = None
) -> None:
    """End the OpenCode of a launcher that is dead, process `pid` as `start` tells it, within 8 s.

    Without a `start` nothing is ended: by now that process may be anybody's.
    `credentials`: user and password that it asks for on `port`.
    """
    from opencode_connected import loopback, processes  # noqa: PLC0415 - see the module's docstring

    if not start or not processes.lives(pid, start):
        return
    if headless:
        # `opencode serve` leaves its running tools behind on SIGTERM; disposing ends them.
        user_and_password = (credentials[0], credentials[1]) if credentials else None
        with suppress(loopback.Unanswered):
            loopback.LoopbackEndpoint(port, user_and_password).post("/global/dispose", timeout=_DISPOSE_SECONDS)
        if not processes.lives(pid, start):
            return
    deadline = time.monotonic() + _TERMINATE_SECONDS
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)  # a stopped process does not see SIGTERM
        while processes.lives(pid, start) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if processes.lives(pid, start):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _main()
