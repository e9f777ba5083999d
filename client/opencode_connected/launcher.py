"""The launcher: OpenCode in the foreground, its presence beside it, and order afterwards whatever happened.

Nothing heavy is imported before OpenCode runs: a person waits for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_connected import names, opencode, processes
from opencode_connected.child import Child
from opencode_connected.errors import OpenCodeMissing, UsageError
from opencode_connected.guardian import Guardian
from opencode_connected.loopback import Endpoint, Unanswered
from opencode_connected.presence import LocalPresence, WantedName
from opencode_connected.registry import Owner, Registry
from opencode_connected.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opencode_connected.bringup import Answering
    from opencode_connected.presence import Presence
    from opencode_connected.report import Report
    from opencode_connected.settings import Settings

_PORTS_TRIED = 5
"""A port can be lost between looking and listening; so often in a row it cannot be chance."""
_OWN_END_SECONDS = 1.0
"""The terminal's own signals reach OpenCode as well: this long it may end by itself."""
_DISPOSE_SECONDS = 5.0
_INTERFACE_SECONDS = 2.0
"""From OpenCode's first answer to an interface that shows what it is told."""
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Launch:
    """What to start."""

    arguments: Sequence[str]
    """Passed on to OpenCode."""
    headless: bool = False
    """`opencode serve` instead of the full-screen interface."""
    local: bool = False
    """Register on this machine even if a relay is configured."""


def launch(settings: Settings, what: Launch, say: Callable[[str], None]) -> int:
    """Run OpenCode to its end; return its exit code, or minus the number of the signal that ended it.

    `say` shows one line to the person at the terminal; it is called only while OpenCode does not have it.
    Raises `LauncherError` if OpenCode could not be started, or had to be ended.
    """
    arguments = opencode.checked_arguments(what.arguments)
    binary = opencode.find_binary(settings.environment)
    if not what.headless and not Terminal.is_there():
        raise UsageError("OpenCode's interface needs a terminal: run it in one, or use --headless")
    terminal = None if what.headless else Terminal()
    code = asyncio.run(_Launcher(settings, what, [binary, *arguments], say).run())
    if terminal and code < 0:
        terminal.restore()
    return code


class _Launcher:
    """One launch."""

    def __init__(self, settings: Settings, what: Launch, program: list[str], say: Callable[[str], None]) -> None:
        self._settings = settings
        self._headless = what.headless
        self._use_relay = settings.relay_ssh_cmd is not None and not what.local
        self._program = program
        self._say = say
        self._hostname = socket.gethostname()
        self._cwd = _working_directory(settings)
        self._owner = Owner(os.urandom(16).hex(), os.getpid(), processes.start_of(os.getpid()))
        self._wanted = WantedName(
            settings.instance_name or names.default_name(self._called(), self._cwd),
            is_default=settings.instance_name is None,
        )
        self._stop: asyncio.Future[signal.Signals]
        self._answering: Answering | None = None

    async def run(self) -> int:
        """Run to the end and clean up."""
        loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        for number in _STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and background jobs want it ignored
                loop.add_signal_handler(number, self._on_signal, number)
        async with AsyncExitStack() as at_the_end:
            guardian = Guardian()
            at_the_end.callback(guardian.dismiss)
            at_the_end.callback(self._close_report)
            presence = self._presence(guardian)
            at_the_end.push_async_callback(presence.close)
            return await self._run_on_some_port(presence, guardian)

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

        return Report(
            self._settings,
            self._owner,
            hostname=self._hostname,
            cwd=self._cwd,
            mode="relay" if self._use_relay else "local",
            headless=self._headless,
        )

    def _close_report(self) -> None:
        if "_report" in self.__dict__:  # it is made when there is something to report
            self._report.close()

    def _presence(self, guardian: Guardian) -> Presence:
        if self._use_relay:
            from opencode_connected.relay import RelayPresence  # noqa: PLC0415 - not needed without a relay

            return RelayPresence(self._settings, self._owner.instance_id, self._wanted, self._report, self._say)
        return LocalPresence(
            Registry(self._settings.registry_dir), self._owner, self._wanted, guardian, say=self._say, log=self._log
        )

    async def _run_on_some_port(self, presence: Presence, guardian: Guardian) -> int:
        tried: set[int] = set()
        while len(tried) < _PORTS_TRIED:
            port = opencode.free_port(tried)
            tried.add(port)
            preparing = asyncio.ensure_future(presence.prepare(port))
            await asyncio.wait((preparing, self._stop), return_when=asyncio.FIRST_COMPLETED)
            if self._stop.done():
                await _cancel(preparing)
                return -self._stop.result()
            preparing.result()
            try:
                return await self._run_on(port, presence, guardian)
            except opencode.PortTaken:
                self._report.log(f"another program has taken port {port}")
        raise OpenCodeMissing(f"{_PORTS_TRIED} ports in a row were taken by other programs while OpenCode started")

    async def _run_on(self, port: int, presence: Presence, guardian: Guardian) -> int:
        """Run OpenCode on `port` to its end; `PortTaken` if another program was faster."""
        command = opencode.command(self._program[0], port, self._program[1:], headless=self._headless)
        endpoint = Endpoint(port, self._settings.opencode_credentials)
        try:
            child = Child(command, self._settings.environment, headless=self._headless)
        except OSError as error:
            raise OpenCodeMissing(f"{command[0]} cannot be started: {error.strerror}") from error
        watch = partial(guardian.watch_opencode, port=port, headless=self._headless, credentials=endpoint.credentials)
        watch(child.pid)
        ended = asyncio.ensure_future(child.wait())
        visible = asyncio.ensure_future(self._make_visible(child.pid, endpoint, presence, watch))
        try:
            await asyncio.wait((ended, visible, self._stop), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                if self._answering is None and not opencode.is_free(port):
                    raise opencode.PortTaken  # `opencode serve` ends by itself then
            elif visible.done():
                await self._end(child, endpoint)
                visible.result()  # raises why it cannot be made visible
            else:
                await self._end_by_signal(self._stop.result(), child, endpoint)
            code = await ended
            self._report.log(f"OpenCode ended, {f'signal {-code}' if code < 0 else f'exit code {code}'}")
            return code
        finally:
            await _cancel(visible)

    async def _make_visible(
        self, pid: int, endpoint: Endpoint, presence: Presence, watch: Callable[[int], None]
    ) -> None:
        """Register OpenCode, process `pid`, once it answers, and keep it registered until cancelled.

        `watch` tells the guardian which process serves.
        """
        from opencode_connected.bringup import wait_until_answering  # noqa: PLC0415 - heavy, see above
        from opencode_connected.registration import Registration, now_utc  # noqa: PLC0415

        self._report.opencode(pid, endpoint.port)
        self._answering = await wait_until_answering(pid, endpoint, self._report.log)
        if self._answering.server_pid != pid:  # a script has started the real program
            watch(self._answering.server_pid)
            self._report.opencode(self._answering.server_pid, endpoint.port)
        directory = self._answering.directory  # another one if OpenCode was given a project
        wanted = Registration(
            name=self._wanted.name,
            hostname=self._hostname,
            port=endpoint.port,
            local_port=endpoint.port,
            cwd=self._cwd if not directory or _is_same(directory, self._cwd) else directory,
            connected_at=now_utc(),
        )
        registered = await presence.register(wanted)
        self._report.registered(registered, self._answering.version)
        if self._headless:
            self._say(f"{registered.name!r} is registered, OpenCode is on port {endpoint.port}")
        elif self._use_relay and registered.name != self._wanted.name:
            # Known only now, with the interface on the screen: so the interface says it.
            await asyncio.sleep(_INTERFACE_SECONDS)
            message = f"the relay has this instance as {registered.name} instead of {self._wanted.name}"
            with suppress(Unanswered):
                toast = {"message": message, "variant": "info"}
                await asyncio.to_thread(endpoint.post, "/tui/show-toast", toast, timeout=_INTERFACE_SECONDS)
        await presence.keep()

    async def _end_by_signal(self, number: signal.Signals, child: Child, endpoint: Endpoint) -> None:
        if number != signal.SIGTERM and not self._headless:
            # Ctrl-C and a closed terminal reach the interface as well; it may need no more.
            with suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), _OWN_END_SECONDS)
                return
        await self._end(child, endpoint)

    async def _end(self, child: Child, endpoint: Endpoint) -> None:
        if self._headless and self._answering:
            # `opencode serve` leaves its running tools behind on SIGTERM; disposing ends them.
            with suppress(Unanswered):
                await asyncio.to_thread(endpoint.post, "/global/dispose", timeout=_DISPOSE_SECONDS)
        await child.terminate(self._answering.server_pid if self._answering else None)


def _working_directory(settings: Settings) -> str:
    """Return the current directory as the shell calls it: through the symlinks that the person went through."""
    try:
        actual = os.getcwd()
    except FileNotFoundError as error:
        raise UsageError("the current directory does not exist any more: go to another one") from error
    called = settings.environment.get("PWD", "")
    return called if called.startswith("/") and _is_same(called, actual) else actual


def _is_same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


async def _cancel(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
