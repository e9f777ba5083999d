"""The command `opencode-mcp`: its settings, its exit codes, and what it says when it cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from support.mcp_client import SERVER_COMMAND

if TYPE_CHECKING:
    from pathlib import Path

BLOCKED_IMPORT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from opencode_mcp.cli import main
sys.argv = ["opencode-mcp"]
sys.exit(main())
"""
"""The command, in a Python where one package is not installed."""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a client that says nothing and goes away."""
    return subprocess.run(
        command or [str(SERVER_COMMAND)],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("variable", "allowed"),
    [("TRANSPORT", "one of: local-relay"), ("LOG_LEVEL", "one of: DEBUG, INFO, WARNING, ERROR")],
)
def test_a_bad_setting_is_one_line_and_exit_code_two(variable: str, allowed: str) -> None:
    ended = run(**{variable: "carrier-pigeon"})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"opencode-mcp: {variable} is 'carrier-pigeon'; it must be {allowed}\n"


def test_the_end_of_its_client_is_a_clean_exit_and_a_registry_that_is_missing_is_not_made(tmp_path: Path) -> None:
    ended = run(RELAY_REGISTRY_DIR=str(tmp_path / "missing"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("package", ["mcp", "anyio"])
def test_without_its_extra_the_command_says_in_one_line_what_to_install(package: str) -> None:
    ended = run(sys.executable, "-c", BLOCKED_IMPORT.format(name=package))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"opencode-mcp: {package} is not installed: the server needs its extra. In a clone of opencode-relay: "
        "pipx install --force '.[server]'\n"
    )


def test_it_says_its_version_and_what_it_takes_without_starting() -> None:
    assert run(str(SERVER_COMMAND), "--version").stdout == f"{version('opencode-relay')}\n"
    assert "RELAY_REGISTRY_DIR" in run(str(SERVER_COMMAND), "--help").stdout
    assert run(str(SERVER_COMMAND), "--no-such-option").returncode == 2
