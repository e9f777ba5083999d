"""OpenCode as a child process: its end, its stops, and ending it.

The interface runs in the launcher's own process group, so that the terminal's signals and the shell's job control
reach it directly. `opencode serve` gets a session of its own: it must be told to stop its tools before a signal
ends it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TERMINATE_SECONDS = 5.0
"""From SIGTERM to SIGKILL; the interface needs 0.5 s."""
_RESUME_SECONDS = 0.1
"""When the shell continues the whole job, the news that OpenCode goes on may come a little later than ours."""


class Child:
    """A running OpenCode. Make it within a running event loop, whose handlers of SIGCHLD and SIGCONT it sets."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, headless: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._stop_check: asyncio.TimerHandle | None = None
        self._headless = headless
        # Before the process exists, so that not even an immediate end is missed.
        self._loop.add_signal_handler(signal.SIGCHLD, self._look)
        self._loop.add_signal_handler(signal.SIGCONT, self._continue)
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL if headless else None,
            start_new_session=headless,
        )

    @property
    def pid(self) -> int:
        """Process id of what was started."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for the end and return the exit code, or minus the number of the signal that ended it."""
        return await asyncio.shield(self._ended)

    async def terminate(self, server_pid: int | None = None) -> int:
        """End it, by force if it must be, and return what `wait` does.

        `server_pid` is the process that serves, if a script started it: the script ends with it.
        """
        if not self._ended.done():
            target = server_pid or self.pid
            _send(target, signal.SIGTERM)
            _send(target, signal.SIGCONT)  # a stopped process does not see SIGTERM
        try:
            async with asyncio.timeout(_TERMINATE_SECONDS):
                return await self.wait()
        except TimeoutError:
            for pid in {self.pid, server_pid or self.pid}:
                _send(pid, signal.SIGKILL)
            return await self.wait()

    def _look(self) -> None:
        if self._ended.done():
            return
        options = os.WNOHANG | os.WUNTRACED | os.WCONTINUED
        pid, status = os.waitpid(self.pid, options)
        while pid:
            if os.WIFSTOPPED(status):
                self._follow_stop_soon()
            elif os.WIFCONTINUED(status):
                self._forget_stop()
            else:
                self._forget_stop()
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self._ended.set_result(self._process.returncode)
                return
            pid, status = os.waitpid(self.pid, options)

    def _follow_stop_soon(self) -> None:
        """Stop as well, unless it goes on at once: to the shell, the launcher and OpenCode are one job."""
        if not self._headless:
            self._forget_stop()
            self._stop_check = self._loop.call_later(_RESUME_SECONDS, os.kill, os.getpid(), signal.SIGTSTP)

    def _forget_stop(self) -> None:
        if self._stop_check:
            self._stop_check.cancel()
            self._stop_check = None

    def _continue(self) -> None:
        self._forget_stop()
        if not self._ended.done():
            _send(self.pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
