"""What every run of the launcher has: signals, the guardian, its report, the guard's door, and how it is seen.

Nothing heavy is imported before OpenCode runs: a person waits for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from opencode_connected import names, processes
from opencode_connected.agents.door import AgentDoor
from opencode_connected.errors import UsageError
from opencode_connected.guardian import Guardian
from opencode_connected.presence import LocalPresence, WantedName
from opencode_connected.registry import Owner, Registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opencode_connected.agents.generation import Installed
    from opencode_connected.child import Child
    from opencode_connected.presence import Presence
    from opencode_connected.report import Report
    from opencode_connected.settings import LauncherSettings

_OWN_END_SECONDS = 1.0
"""The terminal's own signals reach OpenCode as well: this long it may end by itself."""
_CONTINUE = "to go on in a session that your chat client reaches: `opencode-connected -- -s SESSION`"
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Launch:
    """What to start."""

    arguments: Sequence[str] = ()
    """Passed on to OpenCode."""
    headless: bool = False
    """Without the full-screen interface: `opencode serve`, or nothing but OpenCode 2's service."""
    local: bool = False
    """Register on this machine even if a relay is configured."""


class Run(ABC):
    """One launch, from start to goodbye."""

    generation: Literal[1, 2]

    def __init__(
        self, settings: LauncherSettings, what: Launch, installed: Installed, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._headless = what.headless
        self._use_relay = settings.relay_ssh_cmd is not None and not what.local
        self._installed = installed
        self._say = say
        self._hostname = socket.gethostname()
        self._cwd = working_directory(settings)
        pid = os.getpid()
        self._owner = Owner(os.urandom(16).hex(), pid, processes.start_of(pid), processes.since_of(pid))
        self._wanted = WantedName(
            settings.instance_name or names.default_name(self._called(), self._cwd),
            is_default=settings.instance_name is None,
        )
        self._stop: asyncio.Future[signal.Signals]
        self._guardian: Guardian

    async def run(self) -> int:
        """Run to the end and clean up; return the exit code, or minus the number of the signal that ended it."""
        loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        for number in _STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and background jobs want it ignored
                loop.add_signal_handler(number, self._on_signal, number)
        async with AsyncExitStack() as at_the_end:
            self._guardian = Guardian(is_doubled=self._headless)
            at_the_end.callback(self._guardian.dismiss)
            at_the_end.callback(self._close_report)
            return await self._go(at_the_end)

    def say_afterwards(self) -> None:
        """Tell the person what is to be known now that OpenCode's screen is gone.

        OpenCode's own last words name its command, which leads past the launcher.
        """
        if not self._headless and self._report.was_named:
            self._say(_CONTINUE)

    @abstractmethod
    async def _go(self, at_the_end: AsyncExitStack) -> int:
        """Run between the start of the guardian and its dismissal."""

    @property
    def _password(self) -> tuple[str, str] | None:
        """User and password that the guard asks for because the person set them."""
        return self._settings.opencode_credentials

    def _work_in(self, directory: str) -> None:
        """Be where OpenCode is, which is not where the launcher was started."""
        self._cwd = self._cwd if is_same(directory, self._cwd) else directory
        if self._wanted.is_default:
            self._wanted = WantedName(names.default_name(self._called(), self._cwd), is_default=True)

    def _called(self) -> str:
        """Return what a default name begins with: the relay would put its name of this machine before any other."""
        is_client = self._use_relay and self._settings.is_enrolled
        return (self._settings.relay_client if is_client else None) or self._hostname

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._stop.done():
            self._stop.set_result(number)

    def _log(self, message: str) -> None:
        self._report.log(message)

    @cached_property
    def _report(self) -> Report:
        from opencode_connected.report import Report  # noqa: PLC0415 - heavy, see above

        report = Report(
            self._settings,
            self._owner,
            hostname=self._hostname,
            cwd=self._cwd,
            mode="relay" if self._use_relay else "local",
            headless=self._headless,
            generation=self.generation,
        )
        if not self._installed.is_tested:
            report.log(f"this release was not tested with OpenCode {self._installed.version}")
        return report

    def _close_report(self) -> None:
        if "_report" in self.__dict__:  # it is made when there is something to report
            self._report.close()

    def _new_door(self) -> AgentDoor:
        door = AgentDoor(
            self._settings,
            use_relay=self._use_relay,
            instance_id=self._owner.instance_id,
            password=self._password,
        )
        if door.socket:
            self._guardian.watch_socket(door.socket)
        return door

    def _presence(
        self, wanted: WantedName, door: AgentDoor, healthy: Callable[[], Awaitable[bool]], say: Callable[[str], None]
    ) -> Presence:
        if door.socket:
            from opencode_connected.relay import RelayPresence  # noqa: PLC0415 - not needed without a relay

            return RelayPresence(
                self._settings,
                self._owner.instance_id,
                wanted,
                self._report,
                socket=door.socket,
                healthy=healthy,
                say=say,
            )
        registry = Registry(self._settings.registry_dir)
        return LocalPresence(registry, self._owner, wanted, self._guardian, key=door.key, say=say, log=self._log)

    async def _keep(self, presence: Presence) -> None:
        """Look after the registration until cancelled, and clear away what dead launchers left."""
        from opencode_connected.leftovers import clear  # noqa: PLC0415 - heavy, see above

        await asyncio.gather(presence.keep(), asyncio.to_thread(clear, self._settings, self._log))

    async def _end_by_signal(self, number: signal.Signals, child: Child) -> bool:
        """Tell whether the child ended by itself, as the terminal's signals reach it too."""
        if number != signal.SIGTERM and not self._headless:
            # Ctrl-C and a closed terminal reach the interface as well; it may need no more.
            ended = asyncio.ensure_future(child.wait())
            await asyncio.wait((ended,), timeout=_OWN_END_SECONDS)
            return ended.done()
        return False

    def _note_end(self, code: int) -> None:
        self._report.log(f"OpenCode ended, {f'signal {-code}' if code < 0 else f'exit code {code}'}")


def working_directory(settings: LauncherSettings) -> str:
    """Return the current directory as the shell calls it: through the symlinks that the person went through."""
    try:
        actual = os.getcwd()
    except FileNotFoundError as error:
        raise UsageError("the current directory does not exist any more: go to another one") from error
    called = settings.environment.get("PWD", "")
    return called if called.startswith("/") and is_same(called, actual) else actual


def is_same(one: str, other: str) -> bool:
    """Tell whether two paths lead to the same file or directory."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


async def cancel(task: asyncio.Future[None]) -> None:
    """Cancel a task and wait until it has cleaned up."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
