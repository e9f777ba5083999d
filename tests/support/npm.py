"""Programs of pinned versions from npm, installed once below the repository's `.work`."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

_WORK = Path(__file__).parents[2] / ".work"


def install_from_npm(package: str, version: str, *, name: str) -> Path:
    """Install `package` at `version` below `.work/<name>`, unless it is there; return its `node_modules`.

    Processes that want it at once wait for the first. Raises `CalledProcessError` where npm fails.
    """
    directory = _WORK / name
    directory.mkdir(parents=True, exist_ok=True)
    stamp = directory / f"installed-{version}"
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            options = ["--no-audit", "--no-fund", "--prefix", str(directory)]
            subprocess.run(["npm", "install", *options, f"{package}@{version}"], check=True)
            stamp.touch()
    return directory / "node_modules"
