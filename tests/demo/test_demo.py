from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).with_name("demo.py")


def run_demo(**environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {**os.environ, "PYTHONPATH": str(DEMO.parents[1])}
    command = [sys.executable, str(DEMO)]
    return subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=False, timeout=150
    )


@pytest.mark.parametrize("generation", ["1", "2"])
def test_the_demo_goes_all_the_way_through_a_relay(opencode_bin: Path, opencode2_bin: Path, generation: str) -> None:
    demo = run_demo(OPENCODE_BIN=str(opencode_bin), OPENCODE2_BIN=str(opencode2_bin), RELAY="1", V=generation)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    for shown in ("instances()", "echo: Say hello.", "done. result: hello from the shell", "read("):
        assert shown in demo.stdout


def test_a_demo_that_fails_says_why_and_exits_with_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "opencode"
    version = '[ "$1" != --version ] || { echo 1.18.33; exit; }'
    broken.write_text(f"#!/bin/sh\n{version}\necho cannot run here >&2\nexit 7\n")
    broken.chmod(0o755)
    demo = run_demo(OPENCODE_BIN=str(broken), V="1")
    assert demo.returncode == 1
    assert "The demo failed: the launcher ended: cannot run here" in demo.stdout
    assert "Traceback" not in demo.stderr


def test_a_generation_that_there_is_not_is_refused_in_a_line() -> None:
    demo = run_demo(V="3")
    assert demo.returncode == 2
    assert "V=3 is no generation of OpenCode: V=1, V=2, or neither for both" in demo.stdout
