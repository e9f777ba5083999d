"""The service as an agent of the person's session on macOS. Not tested there: only what is written and asked is."""

from __future__ import annotations

import os
import plistlib
import re
import time
from typing import TYPE_CHECKING
from xml.parsers.expat import ExpatError

from opencode_connected.background.manager import RESTART_SECONDS, STOP_SECONDS, Manager, SeenService, must, run
from opencode_connected.errors import LauncherError
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from opencode_connected.background.manager import Job

LABEL = "opencode-connected"
_MARK = "Written by `opencode-connected service install`"
_START = 'set -a; . "$0"; exec "$@"'
"""launchd reads no file of settings, and its own description is not the place for a secret."""
_PID = re.compile(r"^\s*pid = (\d+)$", re.MULTILINE)
_PATH = re.compile(r"^\s*path = (/.*)$", re.MULTILINE)
_EXIT_CODE = re.compile(r"^\s*last exit code = ([1-9]\d*)", re.MULTILINE)
_LOOK_SECONDS = 0.1
_GONE_SECONDS = STOP_SECONDS + 10.0
"""`bootout` may return before the agent has ended, and until then it cannot be loaded again."""


class Launchd(Manager):
    """The domain of the person's session, as `launchctl` reaches it."""

    name = "launchd"

    def __init__(self, environment: Mapping[str, str], home: Path) -> None:
        self._environment = environment
        self._domain = f"gui/{os.getuid()}"
        self._log_file = home / "Library" / "Logs" / f"{LABEL}.log"
        self.file = home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self.log = f"tail -f '{self._log_file}'"

    def description(self, job: Job) -> str:
        """Return the property list."""
        return plistlib.dumps(
            {
                "Label": LABEL,
                "ServiceDescription": _MARK,
                "ProgramArguments": [
                    *("/bin/sh", "-c", _START),
                    *(str(job.settings_file), str(job.program), "--headless"),
                ],
                "WorkingDirectory": str(job.home),
                "RunAtLoad": True,
                "KeepAlive": True,
                "ThrottleInterval": RESTART_SECONDS,
                "ExitTimeOut": STOP_SECONDS,
                "StandardErrorPath": str(self._log_file),
            }
        ).decode()

    def is_own(self, content: str) -> bool:
        """Tell by its description, which a person's own agent does not have."""
        try:
            found = plistlib.loads(content.encode())
        except (plistlib.InvalidFileException, ExpatError, ValueError):
            return False
        return isinstance(found, dict) and found.get("ServiceDescription") == _MARK

    def look(self) -> SeenService:
        """Ask for the agent; one that is loaded starts by itself."""
        printed = self._printed()
        if printed is None:
            return SeenService("stopped" if self.file.exists() else "absent")
        path = _PATH.search(printed)
        if path and os.path.realpath(path[1]) != os.path.realpath(self.file):
            raise LauncherError(
                f"launchd has {printable(path[1])} as {LABEL}, which is not ours and is left alone: move it away, "
                "or keep it"
            )
        if pid := _PID.search(printed):
            return SeenService("active", int(pid[1]), starts_by_itself=True)
        code = _EXIT_CODE.search(printed)
        return SeenService("restarting", None, starts_by_itself=True, reason=f"exit code {code[1]}" if code else "")

    def keep_running(self, *, anew: bool) -> None:
        """Load the agent, which starts it."""
        if anew:
            self.end()
        self._must("enable", f"{self._domain}/{LABEL}")
        if self._printed() is None:
            self._must("bootstrap", self._domain, str(self.file))

    def end(self) -> None:
        """Unload the agent, and wait until it has ended."""
        if self._printed() is None:
            return
        run(["launchctl", "bootout", f"{self._domain}/{LABEL}"], self._environment)
        deadline = time.monotonic() + _GONE_SECONDS
        while self._printed() is not None:
            if time.monotonic() > deadline:
                raise LauncherError(f"launchd does not end {LABEL}: see `launchctl print {self._domain}/{LABEL}`")
            time.sleep(_LOOK_SECONDS)

    def runs_from_boot(self) -> bool:
        """Agents belong to a session."""
        return False

    def run_from_boot(self) -> bool:
        """Agents belong to a session."""
        return False

    @property
    def boot_hint(self) -> str:
        """There is none but to log in."""
        return "have macOS log you in automatically"

    def _printed(self) -> str | None:
        asked = run(["launchctl", "print", f"{self._domain}/{LABEL}"], self._environment)
        return asked.stdout if asked.returncode == 0 else None

    def _must(self, *arguments: str) -> None:
        must(["launchctl", *arguments], self._environment)
