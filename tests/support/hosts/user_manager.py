"""A real systemd manager of a person, on a machine that systemd did not boot. Needs root.

It lives in a mount namespace with a /run of its own, as it wants to see there that systemd runs, and in control
groups of its own. Whatever it started ends with it.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

FAKE_LOGINCTL = Path(__file__).with_name("fake_loginctl.sh")
"""There is no logind to ask where there is no more than this manager."""
_NUMBERS = itertools.count()
_SYSTEMD = Path("/usr/lib/systemd/systemd")
_GROUPS = Path("/sys/fs/cgroup")
_UNIFIED = next((top for top in (_GROUPS / "unified", _GROUPS) if (top / "cgroup.procs").exists()), None)
"""Version 2 of control groups, which systemd goes by also where version 1 is beside it."""
# A manager takes all processes of its group for its own: never may that be the group of everybody.
_START = """
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR" &&
echo $$ >"$1/cgroup.procs" && grep -qx "0::/$(basename "$1")" /proc/self/cgroup && exec "$2" --user
"""
_COMMAND_SECONDS = 120.0

needs_user_manager = pytest.mark.skipif(
    os.geteuid() != 0 or not _SYSTEMD.exists() or _UNIFIED is None or not os.access(_UNIFIED, os.W_OK),
    reason="systemd is not there, or only root can start it so",
)


class UserManager:
    """The manager of whoever has `environment`; a context manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = {**environment, "XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}
        self._group = f"opencode-test-{os.getpid()}-{next(_NUMBERS)}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        assert _UNIFIED is not None, "the test needs a user manager"
        group = _UNIFIED / self._group
        group.mkdir()
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", _START, "sh", group, _SYSTEMD],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            eventually(self._is_up, "the manager is up")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(
        self, *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command where it sees the manager, to its end, whatever comes of it."""
        assert self._process is not None, "not started"
        inside = ("nsenter", f"--target={self._process.pid}", "--mount", "--", "env", f"--chdir={cwd or '/'}")
        return subprocess.run(
            [*inside, *command],
            env={**self.environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )

    def systemctl(self, *arguments: str) -> str:
        """Run `systemctl --user ARGUMENTS`; return what it prints, without blanks at the ends."""
        return self.run("systemctl", "--user", *arguments).stdout.strip()

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the manager has ended"
        return self.systemctl("is-system-running") in ("running", "degraded")

    def _end(self) -> None:
        assert self._process is not None
        self._process.terminate()  # it stops its units first
        try:
            self._process.wait(_COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        eventually(self._is_cleared, "its control groups are empty")

    def _is_cleared(self) -> bool:
        for top in (*_GROUPS.glob(self._group), *_GROUPS.glob(f"*/{self._group}")):
            for directory, _, _ in os.walk(top, topdown=False):
                with suppress(FileNotFoundError):
                    Path(directory).rmdir()
        return True
