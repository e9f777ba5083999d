"""Starting OpenCode's service outside of the unit or job that the launcher runs in.

A restart of the launcher's unit must not end everybody's turns, and the hardening of that unit is not meant for the
person at the desk: there the service runs in a unit of its own, with the environment of the person's login.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PASSED_ON = (
    "HOME",
    "PATH",
    "OPENCODE_CONFIG",
    "OPENCODE_CONFIG_DIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
)
"""By these the service and its files are found; the login may set them, and what it sets wins."""


def start_commands(binary: str, environment: Mapping[str, str]) -> list[list[str]]:
    """Return the commands that start the service and end, the best first; the last one is the plain one."""
    start = [binary, "service", "start"]
    if sys.platform == "darwin" and environment.get("XPC_SERVICE_NAME", "0") not in ("", "0"):
        # launchd ends what a job leaves behind, and starts one that ended again: so it removes itself. Not tested.
        label = f"opencode-relay.service.{os.getpid()}"
        script = f"{shlex.join(start)}; launchctl remove {label}"
        return [["launchctl", "submit", "-l", label, "--", _shell(environment), "-lc", script], start]
    manager = _manager(environment) if _is_in_a_unit(environment) else None
    if manager is None:
        return [start]
    outside = [
        *manager,
        "--collect",
        "--quiet",
        # systemd takes the service, which its starter leaves behind, for the unit's main process.
        "--service-type=forking",
        "--description=OpenCode's service",
        *(f"--setenv={name}={environment[name]}" for name in PASSED_ON if environment.get(name)),
        "--",
        *(_shell(environment), "-lc", f"exec {shlex.join(start)}"),
    ]
    return [outside, start]


def _is_in_a_unit(environment: Mapping[str, str]) -> bool:
    """Tell whether systemd runs this process as a service. A terminal's shell has INVOCATION_ID at times, too."""
    if not environment.get("INVOCATION_ID"):
        return False
    try:
        groups = Path("/proc/self/cgroup").read_text("utf-8")
    except OSError:
        return False
    own = groups.strip().rpartition("/")[2]
    return own.endswith(".service") and not own.startswith("user@")


def _manager(environment: Mapping[str, str]) -> list[str] | None:
    """Return the command that has systemd run something in a unit of its own; None where it cannot be asked."""
    if shutil.which("systemd-run", path=environment.get("PATH")) is None:
        return None
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if Path(runtime, "systemd", "private").exists():
        return ["env", f"XDG_RUNTIME_DIR={runtime}", "systemd-run", "--user"]
    return ["systemd-run", f"--uid={os.getuid()}"] if os.geteuid() == 0 else None


def _shell(environment: Mapping[str, str]) -> str:
    return environment.get("SHELL") or "/bin/sh"
