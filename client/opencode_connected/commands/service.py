"""`service`: keep the launcher running in the background, end that, and tell how it is."""

from __future__ import annotations

import sys
from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import platformdirs
from pydantic import Field
from rich.text import Text

from opencode_connected.agents.generation import KnownGeneration
from opencode_connected.background import environment, installation
from opencode_connected.background.launchd import Launchd
from opencode_connected.background.manager import Job, State, own_description
from opencode_connected.background.systemd import Systemd
from opencode_connected.errors import UsageError
from opencode_connected.openings import Opening, openings_of
from opencode_connected.result import CommandResult
from opencode_connected.state import StateDirectory
from opencode_connected.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from opencode_connected.background.manager import Manager
    from opencode_connected.settings import LauncherSettings


class ServiceResult(CommandResult):
    """What was done, and how the service is now."""

    action: Literal["install", "uninstall", "status"]
    changed: bool
    """Something was changed or, with `--check`, would be."""
    checked: bool = False
    """With `--check`: nothing was changed."""
    manager: Literal["systemd", "launchd"]
    state: State
    pid: int | None = None
    """The launcher's process, where it is active."""
    since: datetime | None = None
    reason: str = ""
    """Why it does not run, as far as that is known."""
    starts: Literal["boot", "login", "never"] = "never"
    """When it starts by itself."""
    boot_hint: str = ""
    """What has it start at boot, where it starts at login."""
    file: str
    """The unit or agent."""
    settings_file: str
    """The environment of the service."""
    log: str
    """The command that shows what the service wrote."""
    opened_from_afar: list[Opening] = Field(default_factory=list)
    """Instances that `opencode-connected close` closes."""

    @property
    def exit_code(self) -> int:
        """Of `status` 1 if it does not run, so that scripts can ask."""
        return int(self.action == "status" and self.state != "active")

    def as_text(self) -> list[RenderableType]:
        """What was done, the state, and where to look further."""
        lines = [line for line in (self._done(),) if line]
        if self.state == "absent":
            hint = "`opencode-connected service install` has the launcher run in the background"
            return [Text(line) for line in (*lines, *([f"not installed: {hint}"] if self.action == "status" else ()))]
        facts = [
            ("starts", self._starts()),
            ("service", self.file),
            ("settings", self.settings_file),
            ("log", self.log),
            *(("opened", f"{each.name}, {each.directory}, from afar") for each in self.opened_from_afar),
        ]
        return [*map(Text, lines), self._headline(), *(Text(f"  {what:<10}{fact}") for what, fact in facts)]

    def _done(self) -> str:
        if self.checked:
            return "would be changed" if self.changed else "nothing would be changed"
        if self.action == "install":
            return (
                "installed; `opencode-connected status` tells when it is registered" if self.changed else "unchanged"
            )
        if self.action == "uninstall":
            ended = "removed; OpenCode's own service and its turns go on, unreachable from afar"
            return ended if self.changed else "there is nothing to remove"
        return ""

    def _headline(self) -> Text:
        if self.state == "active":
            when = f" since {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
            return Text(f"active{when}, process {self.pid or '-'}", style="green")
        why = f": it ended with {self.reason}" if self.reason else ""
        remedies = {
            "restarting": "; it is started again, and its log says more",
            "stopped": "; `opencode-connected service install` starts it",
        }
        return Text(f"{self.state}{why}{remedies[self.state]}", style="red")

    def _starts(self) -> str:
        if self.starts == "boot":
            return "at boot"
        hint = f"; to have it start at boot, and stay when you log out: {self.boot_hint}"
        return f"at login{hint}" if self.starts == "login" else "never by itself"


def install(settings: LauncherSettings, program: Path, *, check: bool) -> ServiceResult:
    """Have `program`, the launcher, run as a service. `check`: only tell whether anything would change.

    Raises:
        OpenCodeMissing: there is no OpenCode that it could make reachable.
        UsageError: this launcher or this OpenCode cannot run so.
        LauncherError: there is no manager, it refuses, or it has a service of that name which is not ours.

    """
    _refuse_passing(program)
    if KnownGeneration(settings.state_dir).find(settings.environment).generation == 1:
        raise UsageError(
            "the service is for OpenCode 2, which serves all directories: OpenCode 1 needs a launcher in each, "
            "`opencode-connected --headless` there, which relay_client_instances of the role relay_client sets up"
        )
    manager = _manager(settings)
    job = Job(program, settings.service_file, _home(settings))
    change = installation.planned(manager, job, environment.written(settings.environment))
    changed = bool(change)
    if not check:
        installation.install(manager, change)
        changed |= not manager.runs_from_boot() and manager.run_from_boot()
    return _result(settings, manager, "install", changed=changed, checked=check)


def uninstall(settings: LauncherSettings) -> ServiceResult:
    """End the service and remove it. What OpenCode's own service does goes on.

    Raises:
        LauncherError: the service is not ours, or cannot be ended.

    """
    manager = _manager(settings)
    changed = installation.uninstall(manager, settings.service_file)
    return _result(settings, manager, "uninstall", changed=changed)


def status(settings: LauncherSettings) -> ServiceResult:
    """Look at the service.

    Raises:
        LauncherError: it is installed, and its manager cannot be asked.

    """
    return _result(settings, _manager(settings), "status", changed=False)


def _manager(settings: LauncherSettings) -> Manager:
    """Return what keeps services running on this system."""
    if sys.platform == "darwin":
        return Launchd(settings.environment, _home(settings))
    return Systemd(settings.environment)


def _result(
    settings: LauncherSettings,
    manager: Manager,
    action: Literal["install", "uninstall", "status"],
    *,
    changed: bool,
    checked: bool = False,
) -> ServiceResult:
    found = ServiceResult(
        action=action,
        changed=changed,
        checked=checked,
        manager=manager.name,
        state="absent",
        file=printable(str(manager.file)),
        settings_file=printable(str(settings.service_file)),
        log=printable(manager.log),
    )
    if own_description(manager) is None:
        return found  # also where no manager runs
    seen = manager.look()
    found.state, found.pid, found.since = seen.state, seen.pid, installation.since(seen.pid)
    found.reason = seen.reason
    found.opened_from_afar = [
        each
        for state in StateDirectory(settings.state_dir).read_here()
        if state.launcher_pid == seen.pid
        for each in openings_of(settings.state_dir, state)
    ]
    if seen.starts_by_itself:
        found.starts = "boot" if manager.runs_from_boot() else "login"
        found.boot_hint = "" if found.starts == "boot" else manager.boot_hint
    return found


def _home(settings: LauncherSettings) -> Path:
    return Path(settings.environment.get("HOME") or Path.home())


def _refuse_passing(program: Path) -> None:
    """Refuse a launcher that was fetched for one call."""
    real = program.resolve()
    if not real.is_file():
        raise UsageError(f"{program} is no program that a service could start: call opencode-connected by its path")
    if real.is_relative_to(platformdirs.user_cache_path().resolve()) or ".cache" in real.parts:
        raise UsageError(
            f"{program} lies in a cache, and will be gone some day: install it with `pipx install opencode-relay`"
        )
