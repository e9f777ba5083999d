"""Prints what a slow way up does to a noisy command of the real OpenCode, behind the launcher's guard. Needs root.

python tests/bench/uplink_real.py [--json] [--kbit N] [--lines N]

Launcher, OpenCode and the scripted model run in one network namespace, an sshd in another. Both generations.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Figure, show
from support.line.netns import TwoHosts
from support.line.sshd import Sshd
from support.opencodes.headless import LAUNCHER
from support.opencodes.opencode import OpenCodeHome, find_opencode
from support.opencodes.opencode2 import OpenCode2Home, find_opencode2
from support.processes import end_all, with_home
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

_KBITS = (256, 1_000, 3_000, 10_000)
_STARTS_SECONDS = 180.0
_MOST_SECONDS = 120.0
"""For a command of half a minute."""


class Laptop:
    """A launcher without a screen on one of two hosts, its OpenCode and its model."""

    def __init__(self, hosts: TwoHosts, directory: Path, generation: int, ssh_command: str, model_url: str) -> None:
        kind, find = (OpenCodeHome, find_opencode) if generation == 1 else (OpenCode2Home, find_opencode2)
        self.home = kind(directory / "home", model_url, binary=find(), asks=False)
        self.project = directory / "project"
        self.project.mkdir()
        self.registry = directory / "registry"
        self._hosts = hosts
        self._environment = self.home.environment(
            {
                "RELAY_SSH_CMD": ssh_command,
                "RELAY_REGISTRY_DIR": str(self.registry),
                "INSTANCE_NAME": "laptop",
                "PWD": str(self.project),
            }
        )

    @contextmanager
    def running(self) -> Iterator[int]:
        """Have it registered; give the port on the relay."""
        command = [*self._hosts.laptop, LAUNCHER, "--headless"]
        log = self.home.root / "launcher.log"
        with log.open("wb") as said:
            launcher = subprocess.Popen(
                command, cwd=self.project, env=self._environment, stdout=said, stderr=said, start_new_session=True
            )
        try:
            file = self.registry / "laptop.json"
            eventually(file.exists, f"the registration; {log} says why there is none", within=_STARTS_SECONDS)
            yield int(json.loads(file.read_text())["port"])
        finally:
            launcher.terminate()
            launcher.wait()
            # OpenCode 2's service outlives every launcher.
            end_all(with_home(self.home.root))

    def reconnects(self) -> int:
        """Return how often the line came back after a break."""
        command = [*self._hosts.laptop, LAUNCHER, "status", "--json"]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        return int(json.loads(done.stdout)["instances"][0]["line"]["reconnects"])


@contextmanager
def scripted_model(hosts: TwoHosts) -> Iterator[str]:
    """Run the model on the laptop; give its URL."""
    command = [*hosts.laptop, sys.executable, "-m", "support.opencodes.scripted_model"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as model:
        assert model.stdout is not None
        try:
            yield model.stdout.readline().strip()
        finally:
            model.terminate()


def measure(kbit: int, generation: int, lines: int) -> list[Figure]:
    """Put one noisy command on one line."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uplink-")))
        hosts = stack.enter_context(TwoHosts())
        sshd = stack.enter_context(Sshd(directory / "relay", address=hosts.relay_address, inside=hosts.relay))
        model_url = stack.enter_context(scripted_model(hosts))
        laptop = Laptop(hosts, directory, generation, sshd.ssh_command, model_url)
        port = stack.enter_context(laptop.running())
        hosts.slow_uplink(kbit)
        before = hosts.sent_bytes()
        told = _drive(hosts, port, generation, laptop.project, lines)
        sent = hosts.sent_bytes() - before
        breaks = laptop.reconnects()
    name = f"{kbit:,} kbit/s, OpenCode {generation}"
    seconds = told["seconds"]
    return [
        Figure(f"{name}: line breaks", breaks, "", 0),
        Figure(f"{name}: sent by the laptop", sent / 1e6, "MB"),
        Figure(f"{name}: events that arrived", told["events_kb"], "kB"),
        Figure(f"{name}: until its end was told", float("inf") if seconds is None else seconds, "s", _MOST_SECONDS),
    ]


def _drive(hosts: TwoHosts, port: int, generation: int, project: Path, lines: int) -> dict[str, Any]:
    arguments = [f"http://127.0.0.1:{port}", str(generation), str(project), str(lines), str(_MOST_SECONDS)]
    command = [*hosts.relay, sys.executable, "-m", "bench.uplink_driver", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--kbit", type=int, choices=_KBITS, help="only this way up")
    parser.add_argument("--lines", type=int, default=1_500, help="that the command prints (%(default)s)")
    options = parser.parse_args()
    figures = [
        figure
        for kbit in ([options.kbit] if options.kbit else _KBITS)
        for generation in (1, 2)
        for figure in measure(kbit, generation, options.lines)
    ]
    show("A noisy command of the real OpenCode on a slow way up", figures, as_json=options.json)


if __name__ == "__main__":
    main()
