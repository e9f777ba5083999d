"""A run of OpenCode 1: a child process of its own for each launcher, with a guard before it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_connected.agents import opencode1
from opencode_connected.agents.run import Run, cancel, is_same
from opencode_connected.child import Child
from opencode_connected.errors import CannotExecute, OpenCodeMissing
from opencode_connected.loopback import LoopbackEndpoint, Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AsyncExitStack

    from opencode_connected.agents.door import AgentDoor
    from opencode_connected.agents.generation import Installed
    from opencode_connected.agents.run import Launch
    from opencode_connected.bringup import Answering
    from opencode_connected.presence import Presence
    from opencode_connected.settings import LauncherSettings

_PORTS_TRIED = 5
"""A port can be lost between looking and listening; so often in a row it cannot be chance."""
_DISPOSE_SECONDS = 5.0
_INTERFACE_SECONDS = 2.0
"""From OpenCode's first answer to an interface that shows what it is told."""
_HEALTH_SECONDS = 3.0
_STARTS_TRIED = 3
_NEW_DATABASE_SECONDS = 60.0
"""A database that is younger may still be set up by another OpenCode, which makes this one fail at its start."""


class _FailedAtStart(Exception):
    """OpenCode ended before it answered, while another one may have been setting up its database."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class OwnedRun(Run):
    """One launch of OpenCode 1."""

    generation = 1

    def __init__(
        self,
        settings: LauncherSettings,
        what: Launch,
        installed: Installed,
        program: list[str],
        *,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(settings, what, installed, say)
        self._program = program
        self._answering: Answering | None = None
        self._endpoint = LoopbackEndpoint(0)

    async def _go(self, at_the_end: AsyncExitStack) -> int:
        door = self._new_door()
        at_the_end.push_async_callback(door.close)
        presence = self._presence(self._wanted, door, self._healthy, self._say)
        at_the_end.push_async_callback(presence.close)
        preparing = asyncio.ensure_future(presence.prepare())
        await asyncio.wait((preparing, self._stop), return_when=asyncio.FIRST_COMPLETED)
        if self._stop.done():
            await cancel(preparing)
            return -self._stop.result()
        preparing.result()
        return await self._run_on_some_port(presence, door)

    async def _healthy(self) -> bool:
        try:
            status, _ = await asyncio.to_thread(self._endpoint.get, "/global/health", timeout=_HEALTH_SECONDS)
        except Unanswered:
            return False
        return status in (200, 401)

    async def _run_on_some_port(self, presence: Presence, door: AgentDoor) -> int:
        tried: set[int] = set()
        starts = 0
        while len(tried) < _PORTS_TRIED:
            port = opencode1.free_port(tried)
            tried.add(port)
            is_new = _database_is_new(self._settings.environment)
            try:
                return await self._run_on(port, presence, door, is_new=is_new and starts < _STARTS_TRIED)
            except opencode1.PortTaken:
                self._report.log(f"another program has taken port {port}")
            except _FailedAtStart as failed:
                starts += 1
                self._say(
                    f"OpenCode ended at its start with exit code {failed.code}, while its database was being made; "
                    f"it is tried again"
                )
        raise OpenCodeMissing(f"{_PORTS_TRIED} ports in a row were taken by other programs while OpenCode started")

    async def _run_on(self, port: int, presence: Presence, door: AgentDoor, *, is_new: bool) -> int:
        """Run OpenCode on `port` to its end; `PortTaken` if another program was faster."""
        command = opencode1.command(self._program[0], port, self._program[1:], headless=self._headless)
        self._endpoint = endpoint = LoopbackEndpoint(port, self._settings.opencode_credentials)
        try:
            child = Child(command, self._settings.environment, headless=self._headless)
        except OSError as error:
            raise CannotExecute(command[0], error) from error
        watch = partial(
            self._guardian.watch_opencode, port=port, headless=self._headless, credentials=endpoint.credentials
        )
        watch(child.pid)
        ended = asyncio.ensure_future(child.wait())
        visible = asyncio.ensure_future(self._make_visible(child.pid, endpoint, presence, door, watch))
        try:
            await asyncio.wait((ended, visible, self._stop), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                if self._answering is None and not opencode1.is_free(port):
                    raise opencode1.PortTaken  # `opencode serve` ends by itself then
                if self._answering is None and is_new and ended.result() == 1:
                    raise _FailedAtStart(ended.result())
            elif visible.done():
                await self._end(child, endpoint)
                visible.result()  # raises why it cannot be made visible
            elif not await self._end_by_signal(self._stop.result(), child):
                await self._end(child, endpoint)
            code = await ended
            self._note_end(code)
            return code
        finally:
            await cancel(visible)

    async def _make_visible(
        self, pid: int, endpoint: LoopbackEndpoint, presence: Presence, door: AgentDoor, watch: Callable[[int], None]
    ) -> None:
        """Register OpenCode, process `pid`, once it answers, and keep it registered until cancelled.

        `watch` tells the guardian which process serves.
        """
        from opencode_connected.agents.listening import SeenListener  # noqa: PLC0415 - heavy: OpenCode starts meanwhile
        from opencode_connected.agents.single import Single  # noqa: PLC0415 - as above
        from opencode_connected.bringup import wait_until_answering  # noqa: PLC0415
        from opencode_connected.registration import OwnRegistration, now_utc  # noqa: PLC0415

        self._report.opencode(pid, endpoint.port)
        single = Single(endpoint, self._settings.rights)
        guard_port = await door.open(single, single.policy, self._log)
        self._answering = await wait_until_answering(pid, endpoint, self._report.log)
        if self._answering.server_pid != pid:  # a script has started the real program
            watch(self._answering.server_pid)
            self._report.opencode(self._answering.server_pid, endpoint.port)
        directory = self._answering.directory  # another one if OpenCode was given a project
        cwd = self._cwd if not directory or is_same(directory, self._cwd) else directory
        seen = SeenListener(endpoint.port, self._answering.server_pid)
        single.answers(self._answering.version or self._installed.version, cwd, self._wanted.name, seen)
        wanted = OwnRegistration(
            name=self._wanted.name,
            hostname=self._hostname,
            port=guard_port or endpoint.port,
            local_port=endpoint.port,
            cwd=cwd,
            connected_at=now_utc(),
        )
        registered = await presence.register(wanted)
        single.answers(self._answering.version or self._installed.version, cwd, registered.name)
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
        await self._keep(presence)

    async def _end(self, child: Child, endpoint: LoopbackEndpoint) -> None:
        if self._headless and self._answering:
            # `opencode serve` leaves its running tools behind on SIGTERM; disposing ends them.
            with suppress(Unanswered):
                await asyncio.to_thread(endpoint.post, "/global/dispose", timeout=_DISPOSE_SECONDS)
        await child.terminate(self._answering.server_pid if self._answering else None)


def _database_is_new(environment: Mapping[str, str]) -> bool:
    """Tell whether OpenCode's database is not there yet, or was written as a whole a moment ago."""
    data_home = environment.get("XDG_DATA_HOME") or str(Path(environment.get("HOME", "~"), ".local", "share"))
    try:
        written = Path(data_home, "opencode", "opencode.db").stat().st_mtime
    except OSError:
        return True
    return time.time() - written < _NEW_DATABASE_SECONDS
