"""What may be reached from afar through the line of OpenCode 2: rights, and the directories that were opened."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from opencode_connected.agents.opener import may_be_opened
from opencode_connected.guard.policy import OpenedDirectory, Policy
from opencode_connected.openings import Openings
from opencode_connected.state import StateDirectory

if TYPE_CHECKING:
    from opencode_connected.settings import LauncherSettings
    from opencode_connected.state import InstanceState

_LOOKS_PER_CHECK = 30
"""Looks between two questions to ps, which costs milliseconds, whether a launcher's process id is still its own."""


class OpenedDirectories:
    """The launchers that share the line `key`, as their state files have them, and what was opened from afar."""

    def __init__(self, settings: LauncherSettings, key: str) -> None:
        self._rights = settings.rights
        self._roots = settings.directories
        self._directory = StateDirectory(settings.state_dir)
        self._openings = Openings(settings.state_dir, key)
        self._key = key
        self._looks = 0
        self._alive: set[str] = set()

    def launchers(self) -> list[InstanceState]:
        """Return the launchers that live, who holds the line first. Takes milliseconds."""
        if self._looks % _LOOKS_PER_CHECK == 0:
            self._alive.clear()
        self._looks += 1
        found = [state for state in self._directory.read_here() if state.line_key == self._key and self._lives(state)]
        return sorted(found, key=lambda state: not state.holds_line)

    def policy(self) -> Policy:
        """Return what may come from afar while those launchers run that live now. Takes milliseconds."""
        launchers = self.launchers()
        opened: dict[str, OpenedDirectory] = {}
        for state in launchers:
            if state.directory and state.directory not in opened:
                opened[state.directory] = OpenedDirectory(state.directory, state.name, opened=True)
        below = [root for state in launchers if state.headless for root in state.open_below]
        for each in self._openings.read():
            if each.directory not in opened and may_be_opened(each.directory, below):
                entry = OpenedDirectory(each.directory, each.name, opened=True, is_fixed=True)
                opened[each.directory] = entry
        roots = dict.fromkeys([*self._roots, *(root for state in launchers for root in state.directories)])
        allowed = (OpenedDirectory(root, None, opened=False) for root in roots)
        return Policy(self._rights, (*opened.values(), *allowed))

    def _lives(self, state: InstanceState) -> bool:
        if state.instance_id in self._alive:
            return _exists(state.launcher_pid)
        if state.launcher_lives():
            self._alive.add(state.instance_id)
            return True
        return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
