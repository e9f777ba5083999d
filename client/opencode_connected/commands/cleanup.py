"""`cleanup`: remove what dead launchers left behind, and nothing whose owner is alive or unknown."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pydantic import BaseModel
from rich.text import Text

from opencode_connected.registry import Registry
from opencode_connected.result import CommandResult
from opencode_connected.state import StateDirectory
from opencode_connected.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from opencode_connected.settings import LauncherSettings


class Orphan(BaseModel):
    """An OpenCode that outlived its launcher. It may be at work, so ending it is left to the person."""

    pid: int
    cwd: str


class Elsewhere(BaseModel):
    """An instance of another machine that has this home too: what lives there is not seen from here."""

    name: str
    hostname: str


class CleanupResult(CommandResult):
    """What was removed, and what a person must decide on."""

    registrations: list[str]
    """Names of the registrations that were removed from the local registry directory."""
    states: list[str]
    """Names (or ids) of the dead instances that `status` does not show any more."""
    orphans: list[Orphan]
    elsewhere: list[Elsewhere]
    """What was left alone."""

    @property
    def exit_code(self) -> int:
        """1 if something is left to do."""
        return int(bool(self.orphans))

    def as_text(self) -> list[RenderableType]:
        """A line per thing."""
        lines = [f"removed the registration {name!r}" for name in self.registrations]
        lines += [f"forgot the dead instance {name!r}" for name in self.states]
        lines += [
            f"process {o.pid} is an OpenCode without its launcher, in {o.cwd}: end it with `kill {o.pid}`"
            for o in self.orphans
        ]
        lines = lines or ["nothing to clean up"]
        lines += [
            f"left {e.name!r} alone, which is of the machine {e.hostname!r}: run `opencode-connected cleanup` there"
            for e in self.elsewhere
        ]
        return [Text(line) for line in lines]


def cleanup(settings: LauncherSettings) -> CleanupResult:
    """Remove registrations of dead owners from the local registry directory, and state files of dead launchers."""
    hostname = socket.gethostname()
    directory = StateDirectory(settings.state_dir)
    states = directory.read_here()
    elsewhere = [
        Elsewhere(name=printable(state.name or state.instance_id), hostname=printable(state.hostname))
        for state in directory.read_all()
        if not state.is_here
    ]
    result = CleanupResult(registrations=[], states=[], orphans=[], elsewhere=elsewhere)
    places = {settings.registry_dir, *(state.registry_dir for state in states if state.mode == "local")}
    if settings.relay_ssh_cmd is not None:
        places.discard(settings.registry_dir)  # that one is on the relay, which cleans up after itself
    for registry in map(Registry, sorted(places)):
        dead = registry.dead(hostname)
        result.registrations += [printable(name) for name in dead if registry.remove_dead(name, hostname)]
    for state in states:
        if state.launcher_lives():
            continue
        # OpenCode 2's service is meant to outlive every launcher.
        is_own = state.generation == 1 or not state.headless
        if is_own and state.opencode_pid and state.opencode_lives():
            result.orphans.append(Orphan(pid=state.opencode_pid, cwd=printable(state.cwd)))
            continue
        directory.remove(state.instance_id)
        result.states.append(printable(state.name or state.instance_id))
    return result
