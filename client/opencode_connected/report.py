"""What the launcher lets others know while OpenCode has the terminal: its log and its state file."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from opencode_connected import processes
from opencode_connected.guard.policy import Right
from opencode_connected.logs import LOGGER, log_file, open_log
from opencode_connected.openings import Openings
from opencode_connected.state import InstanceState, LineReport, StateDirectory, now
from opencode_connected.text import as_utf8, printable

if TYPE_CHECKING:
    from typing import Literal

    from opencode_connected.line.state import LineState
    from opencode_connected.presence import WantedName
    from opencode_connected.registration import OwnRegistration
    from opencode_connected.registry import Owner
    from opencode_connected.settings import LauncherSettings


class Report:
    """The log and the state file of one instance. A disk that is full stops neither OpenCode nor the line."""

    def __init__(
        self,
        settings: LauncherSettings,
        owner: Owner,
        *,
        hostname: str,
        cwd: str,
        mode: Literal["local", "relay"],
        headless: bool,
        generation: Literal[1, 2] = 1,
    ) -> None:
        self._directory = StateDirectory(settings.state_dir)
        self._state_dir = settings.state_dir
        self._log = open_log(log_file(settings.state_dir, owner.instance_id))
        self._state = InstanceState(
            instance_id=owner.instance_id,
            launcher_pid=owner.pid,
            launcher_start=owner.since or owner.start,
            started_at=now(),
            hostname=hostname,
            cwd=as_utf8(cwd),
            mode=mode,
            headless=headless,
            registry_dir=settings.registry_dir,
            log_file=log_file(settings.state_dir, owner.instance_id),
            generation=generation,
            rights=[right for right in Right if right in settings.rights],
        )
        self._is_closed = False
        self._write()

    @property
    def was_named(self) -> bool:
        """Whether the instance got as far as having a name."""
        return self._state.name is not None

    def log(self, message: str) -> None:
        """Note what happened."""
        LOGGER.info("%s", message)

    def line(self, line: LineState) -> None:
        """Note how the line is."""
        self._state.line = LineReport.model_validate(line)
        self._write()

    def opencode(self, pid: int | None, local_port: int | None) -> None:
        """Note which process OpenCode is (None: not the launcher's), and on which port (None: not known yet)."""
        self.log(f"OpenCode is process {pid or 'of others'}" + (f", port {local_port}" if local_port else ""))
        self._state.opencode_pid, self._state.opencode_start = pid, processes.mark_of(pid) if pid else ""
        self._state.local_port = local_port
        self._write()

    def registered(self, registration: OwnRegistration, version: str | None) -> None:
        """Note that the instance is registered."""
        self.log(f"registered as {registration.name!r} on port {registration.port}, OpenCode {version or 'unknown'}")
        self._state.name, self._state.port = registration.name, registration.port
        self._state.opencode_version = printable(version or "", limit=40) or None
        self._write()

    def shares(
        self, directory: str, roots: list[str], line_key: str, wanted: WantedName, *, open_below: list[str]
    ) -> str:
        """Note that OpenCode 2 works in `directory`, reached by whichever launcher holds the line; return its name.

        Launchers in one directory have one name; in different ones they have different names.
        `open_below`: where directories may be opened from afar while this launcher runs.

        Raises:
            NameTaken: the explicit name is another directory's.

        """
        self._state.directory, self._state.directories, self._state.line_key = directory, roots, line_key
        self._state.holds_line, self._state.open_below = False, open_below
        with self._directory.locked():
            from_afar = {each.directory: each.name for each in Openings(self._state_dir, line_key).read()}
            self._state.name = self._directory.name_for(
                self._state, wanted.name, is_default=wanted.is_default, from_afar=from_afar
            )
            self._write()
        return self._state.name

    def holds_line(self, *, holds: bool) -> None:
        """Note whether this launcher holds the line now."""
        self.log(f"this launcher {'holds' if holds else 'lets go of'} the line")
        self._state.holds_line = holds
        self._write()

    def service(self, version: str, port: int, pid: int) -> None:
        """Note which OpenCode 2 runs as the service: also as this instance's own process, where it has no other."""
        self._state.opencode_version, self._state.local_port = printable(version, limit=40) or None, port
        if self._state.headless and pid != self._state.opencode_pid:
            self._state.opencode_pid, self._state.opencode_start = pid, processes.mark_of(pid)
        self._write()

    def was_left_behind(self, name: str) -> bool:
        """Tell whether the last launcher of this machine that held `name` at the relay has died without a goodbye.

        One of another machine with this home may live.
        """
        holders = [state for state in self._directory.read_all() if state.mode == "relay" and state.name == name]
        return bool(holders) and not any(not state.is_here or state.launcher_lives() for state in holders)

    def close(self) -> None:
        """Remove the state file and end the log. What is reported afterwards is dropped."""
        self._is_closed = True
        try:
            self._directory.remove(self._state.instance_id)
        except OSError as error:
            self.log(f"the state file could not be removed: {error}")
        self.log("ended")
        LOGGER.removeHandler(self._log)
        with suppress(OSError):  # on a full disk, what it still has cannot be written
            self._log.close()

    def _write(self) -> None:
        if self._is_closed:
            return
        try:
            self._directory.write(self._state)
        except (OSError, ValueError) as error:  # ValueError: a home directory whose name is no UTF-8
            self.log(f"the state file could not be written: {error}")
