"""Presence at a relay: the line that `line/` holds, as the launcher uses it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from opencode_connected.errors import LauncherError, NameTaken, RelayRefused, UsageError
from opencode_connected.line import errors as line_errors
from opencode_connected.line.command import LineSettings
from opencode_connected.line.keeper import LineKeeper
from opencode_connected.presence import Presence, WantedName
from opencode_connected.settings import load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from opencode_connected.line.state import LineEvent
    from opencode_connected.registration import OwnRegistration
    from opencode_connected.report import Report
    from opencode_connected.settings import LauncherSettings

_FIRST_CONTACT_SECONDS = 5.0
"""How long a person waits for the relay before OpenCode starts without it."""
_EARLY_SECONDS = 30.0
"""A refusal that comes so soon ends OpenCode, for the person to mend it; later there may be work in it."""
_DEAD_SESSION_SECONDS = 20.0
"""The relay ends a session 15 to 18 s after its last message, whatever became of the connection."""
_ASK_AGAIN_SECONDS = 1.0
_PROVISIONED_MARK = "/etc/opencode-relay/relay.json"
"""The settings of a provisioned relay's agent. Whoever names a registry directory is let past it."""


def line_settings(
    settings: LauncherSettings, *, local_port: int, instance_id: str, socket: Path | None = None
) -> LineSettings:
    """Return what the line needs; there must be a RELAY_SSH_CMD."""
    return LineSettings(
        ssh_command=settings.relay_ssh_cmd or "",
        registry_dir=settings.registry_dir,
        ports=settings.relay_ports,
        is_enrolled=settings.is_enrolled,
        command_name=settings.relay_ssh_cmd_name,
        provisioned_mark=_PROVISIONED_MARK if settings.registry_dir_is_default else None,
        local_port=local_port,
        instance_id=instance_id,
        socket=str(socket) if socket else None,
    )


class RelayPresence(Presence):
    """A registration on the relay, and the tunnel that leads to the guard's `socket`. `say` as for `LocalPresence`.

    `healthy` tells whether OpenCode answers on this machine: it takes a few seconds at most, and does not raise.
    """

    def __init__(
        self,
        settings: LauncherSettings,
        instance_id: str,
        wanted: WantedName,
        report: Report,
        *,
        socket: Path,
        healthy: Callable[[], Awaitable[bool]],
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._instance_id = instance_id
        self._wanted = wanted
        self._report = report
        self._say = say
        self._socket = socket
        self._healthy = healthy
        self._keeper: LineKeeper | None = None

    async def prepare(self) -> None:
        """Connect, and say how that went, in one line. Only a refusal that lasts is an error."""
        line = line_settings(self._settings, local_port=0, instance_id=self._instance_id, socket=self._socket)
        self._keeper = LineKeeper(line, self._on_event, self._healthy, self._renewed)
        try:
            await self._keeper.start()
            state = await self._keeper.first_contact(_FIRST_CONTACT_SECONDS)
        except line_errors.LineError as error:
            raise RelayRefused(_advice(str(error), error.remedy)) from error
        if state.phase == "refused":
            raise RelayRefused(_advice(state.error or "the relay refuses", state.remedy))
        if state.port:
            self._say(f"connected to the relay, port {state.port}")
        else:
            trouble = _with_remedy(state.error or "the relay has not answered yet", state.remedy)
            self._say(f"{trouble}. OpenCode starts, and the line is tried again in the background")

    async def register(self, registration: OwnRegistration) -> OwnRegistration:
        """Register at the relay, now or when it can be reached."""
        keeper, began = self._started(), time.monotonic()
        try:
            name = await self._register_as_wanted(keeper, registration)
        except line_errors.LineRefused as error:
            if time.monotonic() - began > _EARLY_SECONDS:
                self._report.log(_with_remedy(f"not registered: {error}", error.remedy))
                await asyncio.Event().wait()
            if isinstance(error, line_errors.LineNameTaken):
                raise NameTaken(_with_remedy(str(error), error.remedy)) from error
            raise RelayRefused(_advice(str(error), error.remedy)) from error
        return registration.model_copy(update={"name": name, "port": keeper.state.port or registration.port})

    async def _register_as_wanted(self, keeper: LineKeeper, registration: OwnRegistration) -> str:
        """Register; a name that one's own dead launcher holds is waited for, as the relay gives it up by itself."""
        deadline = time.monotonic() + _DEAD_SESSION_SECONDS
        while True:
            try:
                return await keeper.register(registration, name_is_default=self._wanted.is_default)
            except line_errors.LineNameTaken as taken:
                if time.monotonic() > deadline or not self._report.was_left_behind(taken.name):
                    raise
                self._report.log(f"the relay still holds {taken.name!r} for a launcher that died; waiting")
                await asyncio.sleep(_ASK_AGAIN_SECONDS)

    async def keep(self) -> None:
        """Nothing to do but to wait: the keeper holds the line in a task of its own."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Take the registration back and end ssh."""
        if self._keeper:
            try:
                await self._keeper.close()
            except line_errors.LineError as error:
                self._report.log(f"the line ended badly: {error}")
            self._report.line(self._keeper.state)

    def _renewed(self, line: LineSettings) -> LineSettings:
        """Return the line as the settings describe it now: `enroll --join` may have written where the relay is."""
        try:
            now = load(self._settings.environment)
        except UsageError as error:
            self._report.log(f"the settings cannot be read again: {error}")
            return line
        if now.relay_ssh_cmd is None:
            return line
        found = line_settings(now, local_port=line.local_port, instance_id=line.instance_id, socket=self._socket)
        if found != line:
            self._report.log("the settings have changed: the line is tried as they say now")
        return found

    def _started(self) -> LineKeeper:
        if self._keeper is None:
            raise LauncherError("prepare comes before register")
        return self._keeper

    def _on_event(self, event: LineEvent) -> None:
        self._report.log(f"line: {_with_remedy(event.text, event.remedy)}")
        # The state that the event leads to is set just after it is told.
        asyncio.get_running_loop().call_soon(self._report_line)

    def _report_line(self) -> None:
        if self._keeper:
            self._report.line(self._keeper.state)


def _with_remedy(problem: str, remedy: str | None) -> str:
    return f"{problem}: {remedy}" if remedy else problem


def _advice(problem: str, remedy: str | None) -> str:
    return f"{_with_remedy(problem, remedy)}; --local works without the relay"
