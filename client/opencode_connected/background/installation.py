"""Installing and removing the service: files first, then whoever keeps it running. Each may be repeated at will."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import opencode_connected
from opencode_connected.background.manager import own_description
from opencode_connected.errors import LauncherError
from opencode_connected.files import write_private

if TYPE_CHECKING:
    from opencode_connected.background.manager import Job, Manager, SeenService

_WOBBLE_SECONDS = 2.0
"""The start of a process is told by the boot time, which is rounded, and by a clock that is corrected."""


@dataclass(frozen=True)
class InstallationChange:
    """What an installation takes. Made before anything is changed."""

    files: tuple[tuple[Path, str], ...]
    """Those that are to be written, and what they are to hold."""
    anew: bool
    """It runs, and otherwise than it would now."""
    start: bool
    """It does not run now, or would not at the next boot or login."""

    def __bool__(self) -> bool:
        return bool(self.files or self.anew or self.start)


def planned(manager: Manager, job: Job, settings: str) -> InstallationChange:
    """Return what is to change until the manager runs `job` with the environment file `settings`.

    Raises:
        LauncherError: the manager cannot be asked, or has a service of that name which is not ours.

    """
    seen, description = manager.look(), own_description(manager)
    wanted = ((manager.file, manager.description(job), description), (job.settings_file, settings, _read(job)))
    files = tuple((path, content) for path, content, before in wanted if content != before)
    is_running = seen.state in ("active", "restarting")
    return InstallationChange(
        files=files,
        anew=is_running and (bool(files) or _is_of_before(seen, manager.file, job.settings_file)),
        start=not is_running or not seen.starts_by_itself,
    )


def install(manager: Manager, change: InstallationChange) -> None:
    """Do it.

    Raises:
        LauncherError: a file cannot be written, or the manager refuses.

    """
    for path, content in change.files:
        try:
            write_private(path, content)
        except OSError as error:
            raise LauncherError(f"cannot write {path}: {error.strerror}") from error
    if change:
        manager.keep_running(anew=change.anew)


def uninstall(manager: Manager, settings_file: Path) -> bool:
    """End the service and remove what `install` wrote; tell whether there was anything.

    Raises:
        LauncherError: the service is not ours, or cannot be ended.

    """
    is_installed = own_description(manager) is not None
    if is_installed:
        manager.look()  # refuses a service of that name that is described elsewhere
        manager.end()
        _remove(manager.file)
    return _remove(settings_file) or is_installed


def since(pid: int | None) -> datetime | None:
    """Return when the process started, to the second."""
    started = _started(pid)
    return None if started is None else datetime.fromtimestamp(started, UTC).replace(microsecond=0)


def _is_of_before(seen: SeenService, *files: Path) -> bool:
    """Tell whether what runs is older than what it is made of: an upgrade, or an installation that was cut off.

    An upgrade exchanges the program below a path that stays. Its files bear the time at which they were packed,
    so the time counts at which they came here.
    """
    started = _started(seen.pid)
    made_of = (Path(opencode_connected.__file__), *files)
    return started is not None and any(path.stat().st_ctime > started + _WOBBLE_SECONDS for path in made_of)


def _started(pid: int | None) -> float | None:
    try:
        return None if pid is None else psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _remove(path: Path) -> bool:
    """Remove a file; tell whether there was one."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LauncherError(f"cannot remove {path}: {error.strerror}") from error
    return True


def _read(job: Job) -> str | None:
    try:
        return job.settings_file.read_text("utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise LauncherError(f"cannot read {job.settings_file}: {error.strerror}") from error
