"""OpenCode 2's background service, found and followed while it moves, and started where nobody else does.

    service = Service(installed, environment, log)
    await service.ensure()          # runs now, whoever started it
    await service.target()          # for the guard: where it is, and what it asks for
    await service.moved(seen)       # the same, looked at anew

A service that is replaced (an upgrade, a restart) has another process and perhaps another password or port: its
registry file tells, and is read again whenever it changes, or when the guard meets a closed door.
"""

from __future__ import annotations

import asyncio
import base64
import re
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_connected.agents import opencode2
from opencode_connected.agents.outside import start_commands
from opencode_connected.errors import LauncherError, OpenCodeMissing
from opencode_connected.guard.upstream import Target
from opencode_connected.logs import tail
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opencode_connected.agents.generation import Installed
    from opencode_connected.agents.listening import SeenListener
    from opencode_connected.agents.opencode2 import Record

_START_SECONDS = 30.0
"""`opencode service start` takes 1 to 2 s, and waits for ever for a port that somebody else has."""
_LOOK_SECONDS = 0.1
_MOVE_SECONDS = 5.0
"""How long a call is held up for a service that is being replaced: its restart takes 2 to 5 s without turns."""
_LOG_LINES = 40
_CAUSE = re.compile(r'level=ERROR.* cause="(?:Cause\(\[Fail\()?(.*?)(?: \(cause: |\)\]\)"|" )')
_MAX_SAID = 16 * 1024


class Service:
    """The service of this user, as a guard's upstream (`guard.upstream.Upstream`). It belongs to one event loop."""

    def __init__(self, installed: Installed, environment: Mapping[str, str], log: Callable[[str], None]) -> None:
        self._binary = installed.binary
        self._environment = environment
        self._log = log
        self._file = opencode2.registry_file(environment)
        self._record: Record | None = None
        self._seen: SeenListener | None = None
        self._told: Record | None = None
        self._looking = asyncio.Lock()
        self._doubt: str | None = None

    @property
    def record(self) -> Record | None:
        """The service as it was last seen; None if it did not run then."""
        return self._record

    async def look(self, *, anew: bool = False) -> Record | None:
        """Return the service that runs now; `anew`: even if its file says what it said before.

        Raises `LauncherError` if it can be reached from other machines.
        """
        async with self._looking:
            read = await asyncio.to_thread(opencode2.read_record, self._file)
            if read is None:
                self._record = None
                return None
            if read == self._record and self._is_there() and not anew:
                return read
            found = await asyncio.to_thread(opencode2.listener, read)
            if isinstance(found, str):
                self._say_doubt(found)
                self._record = None
                return None
            self._say_change(read)
            self._record, self._seen = read, found
            return read

    async def healthy(self) -> bool:
        """Tell whether it runs and answers."""
        record = await self.look()
        return record is not None and await asyncio.to_thread(opencode2.info, record)

    async def target(self) -> Target | None:
        """Return where the service is, as it was last seen; None while it does not run."""
        record = self._record
        if record is None or not self._is_there():
            record = await self._safe_look()
        return _target(record) if record else None

    async def moved(self, seen: Target) -> Target | None:
        """Look where the service is after `seen` was of no use, for up to 5 s while it is being replaced."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_MOVE_SECONDS):
                while True:
                    record = await self._safe_look(anew=True)
                    if record and (_target(record) != seen or await asyncio.to_thread(opencode2.info, record)):
                        return _target(record)
                    await asyncio.sleep(_LOOK_SECONDS)
        return None

    async def appears(self) -> Record:
        """Wait, as long as it takes, until the service runs and answers."""
        while True:
            record = await self.look()
            if record is not None and await asyncio.to_thread(opencode2.info, record):
                return record
            await asyncio.sleep(_LOOK_SECONDS)

    async def ensure(self) -> Record:
        """Return the running service, started if it was not; `OpenCodeMissing` quotes why it cannot be."""
        if await self.healthy() and self._record:
            return self._record
        self._log("OpenCode's service does not run; it is started")
        *outside, inside = start_commands(self._binary, self._environment)
        for command in outside:
            try:
                return await self._start(command)
            except OpenCodeMissing as error:
                self._log(f"{error}; it is started inside the launcher's own unit, whose restart ends its turns")
        return await self._start(inside)

    def _is_there(self) -> bool:
        """Tell whether what was seen to be the service listens there now: nobody else gets the password."""
        return self._seen is not None and self._seen.is_there()

    async def _start(self, command: Sequence[str]) -> Record:
        with tempfile.TemporaryFile() as said:  # a pipe would stay open for as long as the service runs
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    env=dict(self._environment),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            except OSError as error:
                raise OpenCodeMissing(f"{command[0]} cannot be started: {error.strerror}") from error
            try:
                async with asyncio.timeout(_START_SECONDS):
                    code = await process.wait()
                    if code == 0:
                        return await self.appears()
                trouble = f"did not start, exit status {code}"
            except TimeoutError:
                trouble = f"did not come up within {_START_SECONDS:.0f} s"
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            said.seek(0)
            output = said.read(_MAX_SAID).decode(errors="replace")
        raise OpenCodeMissing(f"OpenCode's service {trouble}: {self._reason(output)}")

    async def _safe_look(self, *, anew: bool = False) -> Record | None:
        try:
            return await self.look(anew=anew)
        except LauncherError as error:
            self._say_doubt(str(error))
            return None

    def _reason(self, output: str) -> str:
        """Return what OpenCode says about it: on its output, else in its log."""
        lines = [line for line in map(printable, output.splitlines()) if line]
        if lines:
            return lines[-1]
        path = opencode2.log_file(self._environment)
        for line in reversed(tail(path, _LOG_LINES)):
            if match := _CAUSE.search(line):
                return printable(match[1].removeprefix("Error: "))
        return f"its log is {path}; `opencode service status` tells more"

    def _say_doubt(self, doubt: str) -> None:
        if doubt != self._doubt:  # once, not with every look
            self._log(doubt)
        self._doubt = doubt

    def _say_change(self, new: Record) -> None:
        self._doubt = None
        old, self._told = self._told, new
        if old is None:
            self._log(f"OpenCode's service {new.version} is process {new.pid}, port {new.port}")
        elif old != new:
            self._log(
                f"OpenCode's service was replaced: {old.version}, process {old.pid}, by {new.version}, "
                f"process {new.pid}; its turns are resumed, what it had asked is asked anew"
            )


def _target(record: Record) -> Target:
    token = base64.b64encode(":".join(record.credentials).encode()).decode()
    return Target(url=record.url, authorization=f"Basic {token}", generation=2, version=record.version)
