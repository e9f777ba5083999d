"""What dead launchers left because their guardians were killed as well: the next start clears it away."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from opencode_connected.errors import RegistryRefused
from opencode_connected.guardian import end_opencode
from opencode_connected.registry import Registry
from opencode_connected.state import StateDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_connected.settings import LauncherSettings
    from opencode_connected.state import InstanceState


def clear(settings: LauncherSettings, log: Callable[[str], None]) -> None:
    """Remove registrations and states of dead launchers, and end their headless OpenCodes: nobody reaches these.

    An interface that outlived its launcher is a person's, who sees it, and stays. So does the state of one that had a
    relay: by it a launcher knows that who holds its name there is dead. Takes up to 8 s for each OpenCode.

    What another machine or container left in a home that it shares with this one stays: its processes are not seen
    from here.
    """
    hostname = socket.gethostname()
    directory = StateDirectory(settings.state_dir)
    states = directory.read_here()
    for state in states:
        if state.launcher_lives():
            continue
        try:
            _end(state, settings, log)
            if state.mode == "local" and not state.opencode_lives():
                directory.remove(state.instance_id)
        except OSError as error:
            log(f"what process {state.launcher_pid} left cannot be cleared away: {error}")
    places = {state.registry_dir for state in states if state.mode == "local"}
    if settings.relay_ssh_cmd is None:
        places.add(settings.registry_dir)
    for place in map(Registry, sorted(places)):
        try:
            for name in place.dead(hostname):
                if place.remove_dead(name, hostname):
                    log(f"removed {name!r}, which a dead launcher had registered")
        except RegistryRefused as error:
            log(f"what dead launchers registered cannot be removed: {error}")


def _end(state: InstanceState, settings: LauncherSettings, log: Callable[[str], None]) -> None:
    # OpenCode 2's service is meant to outlive every launcher, and an attached server is not the launcher's.
    if state.generation > 1 or not state.headless or state.opencode_pid is None or not state.opencode_lives():
        return
    log(f"ends the OpenCode of process {state.opencode_pid}, whose launcher died")
    end_opencode(
        pid=state.opencode_pid,
        start=state.opencode_start,
        port=state.local_port or 0,
        headless=True,
        credentials=settings.opencode_credentials,
    )
