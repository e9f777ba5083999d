"""Prints how fast the line comes back, through a real sshd between two network namespaces. Needs root.

python tests/bench/recovery.py [--json] [--runs N] [--fault NAME] [--provisioned]

The relay is an ordinary account, or with `--provisioned` what the roles make: the agent behind forced commands.

Each run has two hosts, an sshd and a line of its own. All of a fault's runs live at the same time, and fail one after
the other, so that twenty link losses of twenty seconds take a minute and no run disturbs another one's recovery.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.table import Table

from relay.provisioned import ProvisionedRelay
from support.line.line_program import LineProgram
from support.line.netns import TwoHosts
from support.line.sshd import Sshd, unix_user

if TYPE_CHECKING:
    from collections.abc import Callable

_STAGGER_SECONDS = 1.5
"""Between the ends of two runs' faults: longer than a recovery should take."""
_DOWN_SECONDS = 20.0
_LONG_SECONDS = 90.0
_CLIENT = "laptop"
_PORTS = range(10_000, 10_100)
"""Of a relay that has its network namespace for itself."""


class Scene:
    """Two hosts and a line between them that is up. `user`: of an ordinary account; None for a provisioned relay."""

    def __init__(self, stack: ExitStack, user: str | None) -> None:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recovery-")))
        self.hosts = stack.enter_context(TwoHosts())
        name, inside = self.hosts.relay_name, self.hosts.relay
        if user is None:
            self.provisioned = stack.enter_context(
                ProvisionedRelay(directory, ports=_PORTS, address="0.0.0.0", name=name, inside=inside)
            )
            self.provisioned.enrol(_CLIENT)
            self.relay = self.provisioned.sshd
            ssh_command, ports = self.provisioned.ssh_command(_CLIENT), self.provisioned.ports_of(_CLIENT)
        else:
            self.relay = stack.enter_context(
                Sshd(directory / "relay", user=user, address="0.0.0.0", name=name, inside=inside)
            )
            ssh_command, ports = self.relay.ssh_command, range(0)
        self.line = stack.enter_context(
            LineProgram(ssh_command, Path(directory.name), ports=ports, inside=self.hosts.laptop)
        )
        self.port = self.line.wait_for("registered", within=60).state["port"]

    def back_after(self, fault_is_over: float) -> float:
        """Return the seconds from the end of the fault to a registration that was probed through its new tunnel."""
        again = self.line.wait_for("registered", since=fault_is_over, within=60)
        if again.state["health"] != "ok":
            raise RuntimeError(f"registered, but {again.state['health']}")
        return again.at - fault_is_over


def ssh_killed(scene: Scene) -> float:
    """Kill the line's ssh."""
    for process in psutil.Process(scene.line.pid).children():
        if process.name() == "ssh":
            os.kill(process.pid, signal.SIGKILL)
    return scene.back_after(time.monotonic())


def session_killed(scene: Scene) -> float:
    """Kill the relay's sshd processes of this connection."""
    scene.relay.kill_sessions()
    return scene.back_after(time.monotonic())


def relay_restarted(scene: Scene) -> float:
    """Stop sshd and its sessions, and start it again. From: it listens."""
    scene.relay.restart()
    return scene.back_after(time.monotonic())


def link_down(scene: Scene) -> float:
    """Switch the laptop's interface off for 20 s. From: it is on again."""
    scene.hosts.link_down()
    time.sleep(_DOWN_SECONDS)
    scene.hosts.link_up()
    return scene.back_after(time.monotonic())


def packets_lost(scene: Scene) -> float:
    """Lose every packet for 20 s behind an interface that stays up. From: none is lost any more."""
    scene.hosts.cut()
    time.sleep(_DOWN_SECONDS)
    scene.hosts.mend()
    return scene.back_after(time.monotonic())


def relay_down_long(scene: Scene) -> float:
    """Stop sshd and its sessions for 90 s. From: it listens."""
    scene.relay.stop()
    time.sleep(_LONG_SECONDS)
    scene.relay.start()
    return scene.back_after(time.monotonic())


def packets_lost_long(scene: Scene) -> float:
    """Lose every packet for 90 s, as a relay does that is switched off. From: none is lost any more."""
    scene.hosts.cut()
    time.sleep(_LONG_SECONDS)
    scene.hosts.mend()
    return scene.back_after(time.monotonic())


def relay_moved(scene: Scene) -> float:
    """Have the relay's name lead to another address of it, while what is for the old one is lost."""
    began = time.monotonic()
    scene.hosts.move_relay()
    return scene.back_after(began)


def no_port(scene: Scene) -> float:
    """End the session while the relay has no port for anybody, which it has again once that was noticed."""
    scene.hosts.take_ports_at_relay()
    began = time.monotonic()
    scene.relay.kill_sessions()
    noticed = scene.line.wait_for("lost", since=began)
    while "does not listen" not in noticed.text:
        noticed = scene.line.wait_for("lost", since=noticed.at)
    scene.hosts.give_ports_at_relay()
    return scene.back_after(time.monotonic())


def address_changed(scene: Scene) -> float:
    """Change the laptop's address; packets for the old one are lost."""
    scene.hosts.change_address()
    return scene.back_after(time.monotonic())


def half_open(scene: Scene) -> float:
    """Lose every packet. To: the launcher says so."""
    began = time.monotonic()
    scene.hosts.cut()
    return scene.line.wait_for("lost", within=60).at - began


def silent_drop(scene: Scene) -> float:
    """Lose what goes through the tunnel, while ssh is well. To: the launcher says so."""
    began = time.monotonic()
    scene.hosts.drop_at_relay(scene.port)
    lost = scene.line.wait_for("lost", within=60)
    if "does not carry" not in lost.text:
        raise RuntimeError(f"reported something else: {lost.text}")
    return lost.at - began


def agent_killed(scene: Scene) -> float:
    """Kill the relay's agent, which its service starts again. From: it is ready."""
    scene.provisioned.kill_agent()
    scene.provisioned.start_agent()
    return scene.back_after(time.monotonic())


@dataclass(frozen=True)
class Fault:
    """What is done to the line, and how long it may take to come back or to notice."""

    name: str
    measure: Callable[[Scene], float]
    limit: float | None


FAULTS = (
    Fault("ssh killed", ssh_killed, 1.0),
    Fault("session killed", session_killed, 1.0),
    Fault("relay restarted", relay_restarted, 1.0),
    Fault("link down 20 s", link_down, 1.0),
    Fault("packets lost 20 s, link up", packets_lost, None),
    Fault("relay down 90 s", relay_down_long, 3.0),
    Fault("packets lost 90 s, link up", packets_lost_long, 3.0),
    Fault("address changed", address_changed, 1.5),
    Fault("relay's name leads elsewhere", relay_moved, 5.0),
    Fault("half-open noticed", half_open, 12.0),
    Fault("silent drop reported", silent_drop, None),
)
FAULTS_OF_AN_ACCOUNT = (Fault("no port for a moment", no_port, 5.0),)
FAULTS_OF_THE_AGENT = (Fault("agent killed", agent_killed, 1.0),)


@dataclass(frozen=True)
class Result:
    """The seconds of one fault's runs."""

    fault: str
    runs: int
    median: float
    worst: float
    limit: float | None

    @property
    def verdict(self) -> str:
        """Say whether the promise is kept, by the worst run."""
        if self.limit is None:
            return ""
        return "ok" if self.worst <= self.limit else "OVER"


def measure(fault: Fault, runs: int, user: str | None) -> Result:
    """Run one fault `runs` times. `user`: see `Scene`."""
    everybody_is_up = threading.Barrier(runs)

    def run(number: int) -> float:
        with ExitStack() as stack:
            try:
                scene = Scene(stack, user)
            except BaseException:
                everybody_is_up.abort()
                raise
            everybody_is_up.wait()
            time.sleep(number * _STAGGER_SECONDS)
            return fault.measure(scene)

    with ThreadPoolExecutor(runs) as pool:
        seconds = list(pool.map(run, range(runs)))
    return Result(fault.name, runs, round(statistics.median(seconds), 2), round(max(seconds), 2), fault.limit)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--runs", type=int, default=20, help="runs of each fault")
    parser.add_argument("--fault", help="only the faults whose name contains this")
    parser.add_argument("--provisioned", action="store_true", help="a relay as the roles make it")
    arguments = parser.parse_args()
    faults = (*FAULTS, *(FAULTS_OF_THE_AGENT if arguments.provisioned else FAULTS_OF_AN_ACCOUNT))
    chosen = [fault for fault in faults if (arguments.fault or "") in fault.name]
    with nullcontext() if arguments.provisioned else unix_user("bash") as user:
        results = [measure(fault, arguments.runs, user) for fault in chosen]
    if arguments.json:
        print(json.dumps([asdict(result) for result in results]))
        return
    where = "a provisioned relay" if arguments.provisioned else "an account"
    table = Table(
        *("fault", "median", "worst", "at most", ""),
        title=f"The line to {where} comes back, s (of {arguments.runs} runs)",
    )
    for result in results:
        limit = "" if result.limit is None else f"{result.limit:g}"
        table.add_row(result.fault, f"{result.median:.2f}", f"{result.worst:.2f}", limit, result.verdict)
    Console().print(table)


if __name__ == "__main__":
    main()
