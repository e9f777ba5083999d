"""Prints what a slow way up does to the line, through a real sshd between two network namespaces. Needs root.

python tests/bench/uplink.py [--json] [--seconds S] [--kbit N] [--provisioned]

Three loads through the tunnel, each with the line's compression and without: the events of a noisy command, a `read`
of 2 MB of messages, and three streams of what nothing compresses. A load that is not over in time is cut off.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from relay.provisioned import ProvisionedRelay
from support.line.line_program import LineProgram
from support.line.netns import TwoHosts
from support.line.sshd import Sshd, unix_user

_KBITS = (256, 1_000, 3_000, 10_000)
_LOG_SECONDS = 30
_LOADS = {
    "noisy log": (f"log/{_LOG_SECONDS}",),
    "read of 2 MB": ("messages/2000000",),
    "three streams": ("bytes/8000000",) * 3,
}
_CLIENT = "laptop"
_SETTLE_SECONDS = 5.0
"""After the load: what was written before is on its way still, and a line that will break does so."""


@dataclass(frozen=True)
class Result:
    """What became of one load."""

    kbit: int
    load: str
    compression: bool
    breaks: int
    """How often the line was lost; none are promised."""
    sent_mb: float
    """By the laptop, all protocols included."""
    seconds: float | None
    """Until the answer was complete; None if it never was, or has no end of its own."""


def measure(kbit: int, load: str, seconds: float, user: str | None, *, compression: bool) -> Result:
    """Put one load on one line. `user`: of an ordinary account; None for a provisioned relay."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uplink-")))
        hosts = stack.enter_context(TwoHosts())
        ports = range(0)
        if user is None:
            relay = stack.enter_context(ProvisionedRelay(directory, address=hosts.relay_address, inside=hosts.relay))
            relay.enrol(_CLIENT)
            ssh_command, ports = relay.ssh_command(_CLIENT), relay.ports_of(_CLIENT)
        else:
            sshd = Sshd(directory / "relay", user=user, address=hosts.relay_address, inside=hosts.relay)
            ssh_command = stack.enter_context(sshd).ssh_command
        if not compression:
            ssh_command = ssh_command.replace("ssh", "ssh -o Compression=no", 1)
        line = stack.enter_context(LineProgram(ssh_command, Path(directory.name), ports=ports, inside=hosts.laptop))
        port = line.wait_for("registered", within=60).state["port"]
        hosts.slow_uplink(kbit)
        sent, began = hosts.sent_bytes(), time.monotonic()
        pulls = [_pull(hosts, port, path, seconds) for path in _LOADS[load]]
        whole = [pull.wait() == 0 for pull in pulls]
        took = time.monotonic() - began
        sent = hosts.sent_bytes() - sent
        time.sleep(_SETTLE_SECONDS)
        breaks = sum(event.kind == "lost" for event in line.events)
    answered = round(took, 1) if all(whole) and not breaks else None
    return Result(kbit, load, compression, breaks, round(sent / 1e6, 2), answered)


def _measure_side_by_side(kbit: int, seconds: float, user: str | None) -> list[Result]:
    """Put each load on lines of its own, which have their own ways up."""
    cells = [(load, compression) for load in _LOADS for compression in (False, True)]
    with ThreadPoolExecutor(len(cells)) as pool:
        running = [
            pool.submit(measure, kbit, load, seconds, user, compression=compression) for load, compression in cells
        ]
        return [future.result() for future in running]


def _pull(hosts: TwoHosts, port: int, path: str, seconds: float) -> subprocess.Popen[bytes]:
    command = ["curl", "--silent", "--fail", "--max-time", str(seconds), f"http://127.0.0.1:{port}/{path}"]
    return subprocess.Popen([*hosts.relay, *command], stdout=subprocess.DEVNULL)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--seconds", type=float, default=60.0, help="the most that a load may take (%(default)s)")
    parser.add_argument("--kbit", type=int, choices=_KBITS, help="only this way up")
    parser.add_argument("--provisioned", action="store_true", help="a relay as the roles make it")
    options = parser.parse_args()
    with nullcontext() if options.provisioned else unix_user("bash") as user:
        results = []
        for kbit in [options.kbit] if options.kbit else _KBITS:
            results += _measure_side_by_side(kbit, options.seconds, user)
    if options.json:
        print(json.dumps([asdict(result) for result in results]))
        return
    where = "a provisioned relay" if options.provisioned else "an account"
    table = Table(
        *("kbit/s", "load", "compression", "line breaks", "MB sent", "answer after, s"),
        title=f"The line to {where} on a slow way up",
    )
    for result in results:
        after = "not in time" if result.seconds is None else f"{result.seconds:.1f}"
        compression = "yes" if result.compression else "no"
        breaks = str(result.breaks) if not result.breaks else f"{result.breaks} OVER"
        table.add_row(f"{result.kbit:,}", result.load, compression, breaks, f"{result.sent_mb:.2f}", after)
    Console().print(table)


if __name__ == "__main__":
    main()
