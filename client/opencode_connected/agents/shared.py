"""A run on OpenCode 2: its interface in the foreground, or none, and a share in the one line of this machine.

OpenCode's service is the person's and outlives this run: it is started if it must be, and never stopped. All
launchers of a user tell their directory in their state files; whoever holds the lock runs the guard and the line for
all of them, and the next one takes over when it ends.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack, suppress
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

from opencode_connected import names
from opencode_connected.agents import opencode2
from opencode_connected.agents.line_lock import line_key, line_lock
from opencode_connected.agents.run import Run, cancel
from opencode_connected.child import Child
from opencode_connected.errors import CannotExecute, LauncherError, OpenCodeMissing
from opencode_connected.loopback import Unanswered
from opencode_connected.names import with_client
from opencode_connected.presence import WantedName
from opencode_connected.text import as_utf8

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_connected.agents.generation import Installed, KnownGeneration
    from opencode_connected.agents.opened import OpenedDirectories
    from opencode_connected.agents.opener import DirectoryOpener
    from opencode_connected.agents.run import Launch
    from opencode_connected.agents.service import Service
    from opencode_connected.guard.policy import Policy
    from opencode_connected.settings import LauncherSettings

_LOOK_SECONDS = 0.5
"""Between two looks at the service and at the other launchers."""
_FOREGROUND_STARTS_SECONDS = 20.0
"""The interface starts the service itself, in 1 to 5 s; after this time the launcher does."""
_FIRST_REVIVAL_SECONDS = 1.0
_LAST_REVIVAL_SECONDS = 60.0
"""Between two starts of a service that does not stay."""
_STABLE_SECONDS = 60.0
_EARLY_SECONDS = 30.0
"""A refusal that comes so soon ends the run, for the person to mend it; later it is tried again."""
_TRY_AGAIN_SECONDS = 15.0
_STAY_REACHABLE = "opencode-connected --headless keeps this machine reachable"


class SharedRun(Run):
    """One launch on OpenCode 2."""

    generation = 2

    def __init__(
        self,
        settings: LauncherSettings,
        what: Launch,
        installed: Installed,
        program: list[str],
        *,
        known: KnownGeneration,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(settings, what, installed, say)
        self._program = program
        self._known = known
        self._directory = as_utf8(opencode2.directory(program[1:], self._cwd))
        self._key = line_key(settings, use_relay=self._use_relay)
        self._wanted = WantedName(self._at_the_relay(self._wanted.name), self._wanted.is_default)
        self._policy: Policy
        self._opened: OpenedDirectories
        self._looking = asyncio.Lock()
        self._holds = False
        self._seen: opencode2.Record | None = None
        self._afterwards: str | None = None

    def say_afterwards(self) -> None:
        """Tell how many turns go on, unreachable now, too."""
        super().say_afterwards()
        if self._afterwards:
            self._say(self._afterwards)

    @property
    def _password(self) -> tuple[str, str] | None:
        return self._settings.guard_credentials

    async def _go(self, at_the_end: AsyncExitStack) -> int:
        child = await self._start_child()
        if child:
            self._guardian.watch_opencode(child.pid, port=0, headless=False, credentials=None)
        sharing = asyncio.ensure_future(self._share(child))
        # Its own end comes first: the line says goodbye before the report is closed.
        at_the_end.push_async_callback(cancel, sharing)
        code = await self._until_the_end(child, sharing)
        await self._note_what_goes_on()
        return code

    async def _until_the_end(self, child: Child | None, sharing: asyncio.Future[None]) -> int:
        if child is None:
            await asyncio.wait((sharing, self._stop), return_when=asyncio.FIRST_COMPLETED)
            if sharing.done():
                sharing.result()  # raises why it cannot be made visible
            return -self._stop.result()
        ended = asyncio.ensure_future(child.wait())
        await asyncio.wait((ended, sharing, self._stop), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            if sharing.done() or not await self._end_by_signal(self._stop.result(), child):
                await child.terminate()
            if sharing.done():
                sharing.result()
        code = await ended
        self._note_end(code)
        return code

    async def _start_child(self) -> Child | None:
        """Start OpenCode's interface at once, or, where it must be seen first that it can be driven, soon."""
        is_doubtful = not self._installed.is_tested and not self._known.can_be_driven(self._installed.version)
        if self._settings.instance_name is not None or is_doubtful or self._headless:
            # These can fail for a reason that the person should read before a screen hides it.
            _ = self._service
        if is_doubtful or self._headless:
            record = await self._service.ensure()
            if is_doubtful:
                try:
                    await asyncio.to_thread(opencode2.refuse_undrivable, record)
                except Unanswered as error:
                    raise OpenCodeMissing(f"OpenCode {record.version} cannot be driven: {error}") from error
                self._known.note_drivable(record.version)
        if self._headless:
            return None
        try:
            return Child(self._program, self._settings.environment, headless=False)
        except OSError as error:
            raise CannotExecute(self._program[0], error) from error

    @cached_property
    def _service(self) -> Service:
        """The service; made when this run tells what it shares.

        That loads what takes long, so it comes after the interface where it can.
        """
        from opencode_connected.agents.opened import OpenedDirectories  # noqa: PLC0415 - heavy, see above
        from opencode_connected.agents.service import Service  # noqa: PLC0415

        environment = self._settings.environment
        roots = list(map(as_utf8, self._settings.directories))
        if self._headless and not roots:
            roots = [as_utf8(os.path.realpath(self._home))]
        open_below = list(map(as_utf8, self._settings.open_below)) if self._headless else []
        name = self._report.shares(self._directory, roots, self._key, self._wanted, open_below=open_below)
        self._wanted = WantedName(name, self._wanted.is_default)
        self._opened = OpenedDirectories(self._settings, self._key)
        self._policy = self._opened.policy()
        return Service(self._installed, environment, self._log)

    @property
    def _home(self) -> str:
        return self._settings.environment.get("HOME") or os.path.expanduser("~")  # noqa: PTH111

    def _at_the_relay(self, name: str) -> str:
        """Return a name as the relay that this machine is enrolled at has it."""
        is_client = self._use_relay and self._settings.is_enrolled
        return with_client(name, self._settings.relay_client) if is_client else name

    def _opener(self) -> DirectoryOpener:
        from opencode_connected.agents.opener import DirectoryOpener  # noqa: PLC0415 - heavy, see above

        return DirectoryOpener(
            self._settings.state_dir,
            self._key,
            home=self._home,
            launchers=self._opened.launchers,
            name_of=lambda directory: self._at_the_relay(names.default_name(self._called(), directory)),
            changed=self._look,
            allows=self._allows,
            log=self._log,
        )

    def _allows(self, directory: str) -> bool:
        return self._policy.allows(directory)

    async def _share(self, child: Child | None) -> None:
        """Keep this directory reachable until cancelled."""
        began = time.monotonic()
        _ = self._service
        if child:
            self._report.opencode(child.pid, None)
        # Loaded now, so that taking the line over takes no longer than it must.
        await asyncio.to_thread(import_module, "opencode_connected.guard.server")
        watching = asyncio.ensure_future(self._watch_service())
        try:
            while True:
                try:
                    async with line_lock(self._settings.state_dir, self._key, self._on_wait):
                        holding = asyncio.ensure_future(self._hold())
                        try:
                            await asyncio.wait((holding, watching), return_when=asyncio.FIRST_COMPLETED)
                        finally:
                            await cancel(holding)
                        for task in (watching, holding):
                            if task.done() and not task.cancelled():
                                task.result()
                except (LauncherError, OSError) as error:
                    if isinstance(error, LauncherError) and time.monotonic() - began < _EARLY_SECONDS:
                        raise
                    self._log(f"not reachable: {error}")
                    await asyncio.sleep(_TRY_AGAIN_SECONDS)
                    if watching.done():
                        watching = asyncio.ensure_future(self._watch_service())
        finally:
            await cancel(watching)

    def _on_wait(self) -> None:
        message = "another launcher's line makes this one reachable, and this one takes over when that ends"
        (self._say if self._headless else self._log)(message)

    async def _hold(self) -> None:
        """Hold the line: the guard, the registration, and what the other launchers opened."""
        from opencode_connected.registration import OwnRegistration, now_utc  # noqa: PLC0415 - heavy, see above

        async with AsyncExitStack() as at_the_end:
            self._holds = True
            self._report.holds_line(holds=True)
            at_the_end.callback(self._report.holds_line, holds=False)
            looking = asyncio.ensure_future(self._watch_launchers())
            at_the_end.push_async_callback(cancel, looking)
            door = self._new_door()
            at_the_end.push_async_callback(door.close)
            guard_port = await door.open(self._service, lambda: self._policy, self._log, self._opener())
            say = self._say if self._headless else self._log
            presence = self._presence(self._wanted, door, self._service.healthy, say)
            at_the_end.push_async_callback(presence.close)
            await presence.prepare()
            record = await self._service.appears()
            self._report.service(record.version, record.port, record.pid)
            wanted = OwnRegistration(
                name=self._wanted.name,
                hostname=self._hostname,
                port=guard_port or record.port,
                local_port=record.port,
                cwd=self._directory,
                connected_at=now_utc(),
            )
            registered = await presence.register(wanted)
            self._report.registered(registered, record.version)
            say(f"{registered.name!r} is registered, OpenCode's service is on port {record.port}")
            await self._keep(presence)

    async def _watch_launchers(self) -> None:
        while True:
            with suppress(OSError):
                await self._look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        """See what is open now. One look at a time: an older one must not be the last."""
        async with self._looking:
            self._policy = await asyncio.to_thread(self._opened.policy)

    async def _watch_service(self) -> None:
        """Follow the service, and have one running where nobody else does. Never returns."""
        began = time.monotonic()
        pause = _FIRST_REVIVAL_SECONDS
        last_start = began if self._headless else None
        while True:
            record = await self._service.look()
            if record and await self._service.healthy():
                if time.monotonic() - (last_start or began) > _STABLE_SECONDS:
                    pause = _FIRST_REVIVAL_SECONDS
                await self._check(record)
            elif self._headless or time.monotonic() - began > _FOREGROUND_STARTS_SECONDS:
                if last_start is not None:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LAST_REVIVAL_SECONDS)
                last_start = time.monotonic()
                try:
                    await self._service.ensure()
                except OpenCodeMissing as error:
                    self._log(str(error))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _check(self, record: opencode2.Record) -> None:
        """Refuse a service that cannot be driven; it may be another version than the program on PATH."""
        if not self._known.can_be_driven(record.version):
            with suppress(Unanswered):  # it may just be ending; it is looked at again
                await asyncio.to_thread(opencode2.refuse_undrivable, record)
                self._known.note_drivable(record.version)
        if record != self._seen:
            self._report.service(record.version, record.port, record.pid)
        self._seen = record

    async def _note_what_goes_on(self) -> None:
        """Find out how many turns go on, if nobody can see them any more."""
        record = self._service.record if "_service" in self.__dict__ else None
        if record is None or not self._holds:
            return
        launchers = await asyncio.to_thread(self._opened.launchers)
        if any(state.instance_id != self._owner.instance_id for state in launchers):
            return
        turns = await asyncio.to_thread(opencode2.running, record)
        if turns:
            self._afterwards = f"{turns} turn{'s go' if turns > 1 else ' goes'} on; {_STAY_REACHABLE}"
