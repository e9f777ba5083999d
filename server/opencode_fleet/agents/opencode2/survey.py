"""What of an OpenCode 2 is shown: directories that are opened or in use, and the newest sessions of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_fleet.model import Workplace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opencode_fleet.agents.guard import GuardDocument
    from opencode_fleet.model import Session

IN_USE_FOR: Final = 7 * 86_400.0
"""Seconds after its last session's last change for which an allowed directory is shown."""
MAX_IN_USE: Final = 50
SESSIONS_IN_SNAPSHOT: Final = 20
"""Of each directory."""


def workplaces(guard: GuardDocument, sessions: Iterable[Session], running: set[str], now: float) -> list[Workplace]:
    """Return the directories to show.

    Args:
        guard: what its launchers opened, and its owner allows.
        sessions: those that are known.
        running: the ids of those that run.
        now: epoch seconds.
    """
    opened = {each.path: Workplace(directory=each.path, name=each.name) for each in guard.directories if each.opened}
    roots = [each.path.rstrip("/") for each in guard.directories if not each.opened]
    used: dict[str, float] = {}
    for session in sessions:
        directory = session.directory
        if directory in opened or not any(f"{directory}/".startswith(f"{root}/") for root in roots):
            continue
        last = now if session.id in running else session.updated
        if now - last < IN_USE_FOR:
            used[directory] = max(last, used.get(directory, 0.0))
    newest = sorted(used, key=lambda directory: used[directory], reverse=True)[:MAX_IN_USE]
    return [*opened.values(), *(Workplace(directory=directory) for directory in newest)]


def newest_sessions(directories: set[str], sessions: Iterable[Session], running: Iterable[str]) -> list[Session]:
    """Return the newest sessions of each directory, newest first, and all that run."""
    active = set(running)
    count = dict.fromkeys(directories, 0)
    kept = []
    for session in sorted(sessions, key=lambda each: each.updated, reverse=True):
        room = count.get(session.directory, SESSIONS_IN_SNAPSHOT) < SESSIONS_IN_SNAPSHOT
        if session.id in active or (room and session.parent_id is None):
            kept.append(session)
        if room:
            count[session.directory] += 1
    return kept
