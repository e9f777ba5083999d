from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).with_name("demo.py")


def run_demo(**environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {**os.environ, "PYTHONPATH": str(DEMO.parents[1])}
    command = [sys.executable, str(DEMO)]
    return subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=False, timeout=150
    )


def test_the_demo_goes_all_the_way_through_a_relay(opencode_bin: Path) -> None:
    demo = run_demo(OPENCODE_BIN=str(opencode_bin), RELAY="1")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    for shown in ("instances()", "echo: Say hello.", "done. result: hello from the shell", "read("):
        assert shown in demo.stdout


def test_a_demo_that_fails_says_why_and_exits_with_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "opencode"
    broken.write_text("#!/bin/sh\necho cannot run here >&2\nexit 7\n")
    broken.chmod(0o755)
    demo = run_demo(OPENCODE_BIN=str(broken))
    assert demo.returncode == 1
    assert "The demo failed: the launcher ended: cannot run here" in demo.stdout
    assert "Traceback" not in demo.stderr
