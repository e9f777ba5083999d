"""What the launcher lets others know while OpenCode has the terminal: its log and its state file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_connected import processes
from opencode_connected.logs import LOGGER, log_file, open_log
from opencode_connected.state import InstanceState, LineReport, StateDirectory, now
from opencode_connected.text import printable

if TYPE_CHECKING:
    from typing import Literal

    from opencode_connected.line.state import LineState
    from opencode_connected.registration import Registration
    from opencode_connected.registry import Owner
    from opencode_connected.settings import Settings


class Report:
    """The log and the state file of one instance. A disk that is full stops neither OpenCode nor the line."""

    def __init__(
        self,
        settings: Settings,
        owner: Owner,
        *,
        hostname: str,
        cwd: str,
        mode: Literal["local", "relay"],
        headless: bool,
    ) -> None:
        self._directory = StateDirectory(settings.state_dir)
        self._log = open_log(log_file(settings.state_dir, owner.instance_id))
        self._state = InstanceState(
            instance_id=owner.instance_id,
            launcher_pid=owner.pid,
            launcher_start=owner.start,
            started_at=now(),
            hostname=hostname,
            cwd=cwd,
            mode=mode,
            headless=headless,
            registry_dir=settings.registry_dir,
            log_file=log_file(settings.state_dir, owner.instance_id),
        )
        self._is_closed = False
        self._write()

    def log(self, message: str) -> None:
        """Note what happened."""
        LOGGER.info("%s", message)

    def line(self, line: LineState) -> None:
        """Note how the line is."""
        self._state.line = LineReport.model_validate(line)
        self._write()

    def opencode(self, pid: int, local_port: int) -> None:
        """Note that OpenCode was started."""
        self.log(f"OpenCode is process {pid}, port {local_port}")
        self._state.opencode_pid, self._state.opencode_start = pid, processes.start_of(pid)
        self._state.local_port = local_port
        self._write()

    def registered(self, registration: Registration, version: str | None) -> None:
        """Note that the instance is registered."""
        self.log(f"registered as {registration.name!r} on port {registration.port}, OpenCode {version or 'unknown'}")
        self._state.name, self._state.port = registration.name, registration.port
        self._state.opencode_version = printable(version or "", limit=40) or None
        self._write()

    def was_left_behind(self, name: str) -> bool:
        """Tell whether the last launcher of this machine that held `name` at the relay has died without a goodbye."""
        holders = [state for state in self._directory.read_all() if state.mode == "relay" and state.name == name]
        return bool(holders) and not any(state.launcher_lives() for state in holders)

    def close(self) -> None:
        """Remove the state file and end the log. What is reported afterwards is dropped."""
        self._is_closed = True
        try:
            self._directory.remove(self._state.instance_id)
        except OSError as error:
            self.log(f"the state file could not be removed: {error}")
        self.log("ended")
        LOGGER.removeHandler(self._log)
        self._log.close()

    def _write(self) -> None:
        if self._is_closed:
            return
        try:
            self._directory.write(self._state)
        except OSError as error:
            self.log(f"the state file could not be written: {error}")
