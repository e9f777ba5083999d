"""The official MCP conformance suite: installed if missing, and run against a URL."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from support.project.npm import install_from_npm, install_node

if TYPE_CHECKING:
    from pathlib import Path

CONFORMANCE_VERSION = "0.2.0-alpha.12"
REVISIONS = ("2025-11-25", "2026-07-28")

_RUN_SECONDS = 150.0
"""A revision takes 5 s alone."""


def install_conformance() -> tuple[Path, Path]:
    """Install suite and Node below the repository's `.work`, once; return Node and the suite's program."""
    package = "@modelcontextprotocol/conformance"
    modules = install_from_npm(package, CONFORMANCE_VERSION, name="conformance")
    return install_node(), modules / package / "dist" / "index.js"


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
