"""The service as a unit of the person's own systemd."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from opencode_connected.background.manager import RESTART_SECONDS, STOP_SECONDS, Manager, SeenService, must, run
from opencode_connected.errors import LauncherError, UsageError
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from subprocess import CompletedProcess

    from opencode_connected.background.manager import Job

UNIT = "opencode-connected.service"
_MARK = "# Written by `opencode-connected service install`"
_UNIT = """{mark}, and anew by each. Own settings: `systemctl --user edit {unit}`.
[Unit]
Description=OpenCode, reachable from afar
StartLimitIntervalSec=0

[Service]
WorkingDirectory={home}
EnvironmentFile={settings_file}
ExecStart={program} --headless
Restart=always
RestartSec={restart}
# The launcher ends what it started and takes the registration back itself.
KillMode=mixed
TimeoutStopSec={stop}
OOMPolicy=continue
# No more rights than the person's account has by itself: sudo does not work here.
NoNewPrivileges=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
LimitCORE=0

[Install]
WantedBy=default.target
"""
_BOOTED = Path("/run/systemd/system")
"""It is there if systemd is what the system was booted with: sd_booted(3)."""
_NO_PROGRAM = frozenset("\"'\\")
"""systemd starts nothing whose path has one of these, however it is written."""
_PROPERTIES = "LoadState,FragmentPath,UnitFileState,ActiveState,SubState,MainPID,Result,ExecMainStatus"


class Systemd(Manager):
    """The person's own manager, as `systemctl --user` reaches it."""

    name = "systemd"
    log = f"journalctl --user --unit {UNIT}"

    def __init__(self, environment: Mapping[str, str]) -> None:
        runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        self._environment = {**environment, "XDG_RUNTIME_DIR": runtime}
        self._user = pwd.getpwuid(os.getuid()).pw_name
        self.file = platformdirs.user_config_path() / "systemd" / "user" / UNIT

    def description(self, job: Job) -> str:
        """Return the unit."""
        return _UNIT.format(
            mark=_MARK,
            unit=UNIT,
            home=_path(job.home),
            settings_file=_path(job.settings_file),
            program=_word(job.program),
            restart=RESTART_SECONDS,
            stop=STOP_SECONDS,
        )

    def is_own(self, content: str) -> bool:
        """Tell by the first line, which a person's own unit does not have."""
        return content.startswith(_MARK)

    def look(self) -> SeenService:
        """Ask for the unit's properties."""
        shown = self._show()
        state = shown.get("ActiveState")
        by_itself = shown.get("UnitFileState") == "enabled"
        if state == "active":
            return SeenService("active", int(shown.get("MainPID", "0")) or None, by_itself)
        if shown.get("LoadState") == "not-found" and not self.file.exists():
            return SeenService("absent")
        # Until it is started again the manager calls it "activating".
        return SeenService("restarting" if state == "activating" else "stopped", None, by_itself, _reason(shown))

    def keep_running(self, *, anew: bool) -> None:
        """Reload, enable, and start or restart the unit."""
        self._must("daemon-reload")
        if self._show().get("FragmentPath") == "":
            raise LauncherError(
                f"systemd does not look for units in {self.file.parent}: its own XDG_CONFIG_HOME is another one; "
                "unset it here, or log out and in again"
            )
        self._must("enable", "--quiet", UNIT)
        self._must("restart" if anew else "start", UNIT)

    def end(self) -> None:
        """Stop and disable the unit."""
        if self._show().get("LoadState") == "not-found":
            return
        self._must("disable", "--quiet", "--now", UNIT)

    def runs_from_boot(self) -> bool:
        """Ask whether the person's manager lingers."""
        if self._loginctl() is None:
            return False
        asked = run(["loginctl", "show-user", self._user, "--property=Linger", "--value"], self._environment)
        return asked.stdout.strip() == "yes"

    def run_from_boot(self) -> bool:
        """Have the person's manager linger, which a person may ask for oneself where the system's policy says so."""
        if self._loginctl() is None:
            return False
        return run(["loginctl", "--no-ask-password", "enable-linger", self._user], self._environment).returncode == 0

    @property
    def boot_hint(self) -> str:
        """The command that takes root."""
        return f"sudo loginctl enable-linger {self._user}"

    def _loginctl(self) -> str | None:
        return shutil.which("loginctl", path=self._environment.get("PATH"))

    def _show(self) -> dict[str, str]:
        """Return the unit's properties.

        Raises:
            LauncherError: there is no manager to ask, or it has a unit of this name from elsewhere.

        """
        if shutil.which("systemctl", path=self._environment.get("PATH")) is None or not _BOOTED.exists():
            raise LauncherError(
                "this system was not booted with systemd: let what starts its programs, such as the container's "
                "own command, keep `opencode-connected --headless` running"
            )
        asked = self._run("show", UNIT, f"--property={_PROPERTIES}")
        if asked.returncode != 0:
            raise LauncherError(
                f"{self._user} has no systemd manager that runs ({printable(asked.stderr)}): log in as {self._user} "
                f"itself, by ssh or at the desk and not by su or sudo, or run `{self.boot_hint}` once"
            )
        shown = dict(line.split("=", 1) for line in asked.stdout.splitlines() if "=" in line)
        if shown.get("LoadState") == "masked":
            raise LauncherError(f"{UNIT} is masked: run `systemctl --user unmask {UNIT}` if it may run")
        fragment = shown.get("FragmentPath", "")
        if fragment and os.path.realpath(fragment) != os.path.realpath(self.file):
            raise LauncherError(
                f"systemd has {printable(fragment)} as {UNIT}, which is not ours and is left alone: move it away, "
                "or keep it"
            )
        return shown

    def _command(self, *arguments: str) -> list[str]:
        return ["systemctl", "--user", "--no-ask-password", *arguments]

    def _run(self, *arguments: str) -> CompletedProcess[str]:
        return run(self._command(*arguments), self._environment)

    def _must(self, *arguments: str) -> str:
        return must(self._command(*arguments), self._environment)


def _reason(shown: Mapping[str, str]) -> str:
    result = shown.get("Result", "success")
    if result == "success":
        return ""
    return f"exit code {shown.get('ExecMainStatus', '?')}" if result == "exit-code" else printable(result)


def _path(path: Path) -> str:
    """Return a path as directives of one path have it: to the end of the line, with specifiers."""
    text = str(path)
    if not text.isprintable() or text != text.strip():
        raise _refused(text)
    return text.replace("%", "%%")


def _word(path: Path) -> str:
    """Return the path of a program as a command line begins with it: variables are not replaced there."""
    if _NO_PROGRAM & set(str(path)):
        raise _refused(str(path))
    return f'"{_path(path)}"'


def _refused(path: str) -> UsageError:
    return UsageError(f"systemd cannot be given the path {path!a}: use a plainer one")
