"""Prints the launcher's figures: what it adds before OpenCode starts, and after OpenCode answers.

python tests/bench/launcher.py [--json] [--runs N]
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import httpx

from bench.figures import Figure, show
from client.launched import Launched, Machine
from support.line.sshd import Sshd
from support.opencodes.opencode import OpenCodeHome, find_opencode
from support.opencodes.scripted_model import ScriptedModel
from support.waiting import eventually

_FAKE = Path(__file__).with_name("fake_opencode.sh")
_START_SECONDS = 60.0
_HEALTH_SECONDS = 0.2
"""A request that comes too early is never answered: it is given up, and sent again."""


def start_to_start(machine: Machine, scratch: Path, env: dict[str, str]) -> float:
    """Measure from the launcher's start to OpenCode's, with a stand-in that does nothing else."""
    program = scratch / "bin" / "opencode"
    program.parent.mkdir(exist_ok=True)
    if not program.exists():
        program.symlink_to(_FAKE)
    started_file = scratch / "started"
    started_file.unlink(missing_ok=True)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    began = time.time()
    with Launched(machine, env={**env, "PATH": path, "STARTED_FILE": str(started_file)}) as launched:
        launched.ended()
    return started_file.stat().st_mtime - began


def healthy_to_registered(machine: Machine, env: dict[str, str]) -> float:
    """Measure from the first answer of a real OpenCode, asked as often as may be, to the registration's file."""
    with Launched(machine, env=env) as launched:
        url = f"http://127.0.0.1:{launched.state()['local_port']}/global/health"

        def healthy() -> bool:
            try:
                return httpx.get(url, timeout=_HEALTH_SECONDS, trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        eventually(healthy, "OpenCode answers", within=_START_SECONDS)
        healthy_at = time.time()
        name = launched.registered()["name"]
        registered_at = (machine.registry_dir / f"{name}.json").stat().st_mtime
        launched.launcher().terminate()
        launched.ended()
    return max(0.0, registered_at - healthy_at)


def handshake(ssh_command: str) -> float:
    """Measure one bare ssh login that does nothing."""
    began = time.monotonic()
    subprocess.run([*shlex.split(ssh_command), "true"], check=True, stdin=subprocess.DEVNULL)
    return time.monotonic() - began


def measure(runs: int) -> list[Figure]:
    """Measure without a relay, then with one on loopback."""
    with tempfile.TemporaryDirectory() as name, ScriptedModel() as model:
        scratch = Path(name)
        (scratch / "project").mkdir()
        home = OpenCodeHome(scratch / "home", model.base_url, binary=find_opencode())
        machine = Machine(home, scratch / "registry", scratch / "project", scratch / "state", scratch / "config")
        with Sshd(scratch / "relay") as relay:
            bare = statistics.median(handshake(relay.ssh_command) for _ in range(runs))
            figures = [Figure("one bare ssh login", bare, "s")]
            for where, env, least in (
                ("local", {}, 0.3),
                ("relay", {"RELAY_SSH_CMD": relay.ssh_command}, bare + 0.5),
            ):
                before = statistics.median(start_to_start(machine, scratch, env) for _ in range(runs))
                after = statistics.median(healthy_to_registered(machine, env) for _ in range(max(3, runs // 4)))
                figures += [
                    Figure(f"{where}: exec to exec of OpenCode, median", before, "s"),
                    Figure(f"{where}: healthy to registered, median", after, "s"),
                    Figure(f"{where}: what the launcher adds in all", before + after, "s", least),
                ]
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--runs", type=int, default=20, help="starts a figure; of real OpenCodes a quarter (%(default)s)"
    )
    options = parser.parse_args()
    figures = measure(options.runs)
    show("The launcher", figures, as_json=options.json)


if __name__ == "__main__":
    main()
