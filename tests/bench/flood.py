"""Prints how long an honest log-in takes while one stolen key floods the relay with log-ins. Needs root.

python tests/bench/flood.py [--json] [--laptops N] [--flooders N] [BOUND…]

A bound is `SOURCE` or `SOURCE+RATE`: sshd's PerSourceMaxStartups, and new connections a second that nftables lets
through from one address after a burst of 400. In each run, from three addresses of one network namespace: the
laptops of one office, an honest laptop elsewhere, and the thief. Relay and clients have a processor each.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.table import Table

from bench.scale import BLOCK, LOOK_SECONDS, PORTS, WAVE, Provisioned, make_key
from relay.provisioned import ProvisionedRelay
from support.line.many_lines import Line, ManyLines
from support.line.netns import TwoHosts
from support.opencodes.fake_fleet import FakeFleet

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUNDS = ("200", "30", "20", "200+5")
BURST = 400
_HONEST, _THIEF = "10.77.0.253", "10.77.0.254"
_LOG_INS = 5
_FLOODED_SECONDS = 30.0
"""After which no further log-in is tried in the flood. Its burst is over by then."""
_PAUSE_SECONDS = 0.3
"""Between two tries of a log-in that was refused, as a launcher makes it; and between two log-ins."""
_GIVE_UP_SECONDS = 60.0
_BACK_SECONDS = 60.0
_ON_RELAY, _ON_CLIENTS = ("taskset", "--cpu-list", "1"), ("taskset", "--cpu-list", "0")
_LAST = ("nice", "--adjustment", "19")
"""The thief has a processor elsewhere: here it takes what the honest leave."""
_RULES = """
table inet ssh_rate {{
    set sources {{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout 3m; }}
    chain input {{
        type filter hook input priority filter; policy accept;
        tcp dport {port} tcp flags & (fin | syn | rst | ack) == syn \
update @sources {{ ip saddr limit rate over {rate}/second burst {burst} packets }} drop
    }}
}}
"""


@dataclass(frozen=True)
class Bound:
    """What is tried."""

    per_source: int
    rate: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        source, _, rate = text.partition("+")
        return cls(int(source), int(rate) if rate else None)

    def __str__(self) -> str:
        return f"PerSourceMaxStartups {self.per_source}" + (f", nftables {self.rate}/s" if self.rate else "")


@dataclass(frozen=True)
class Back:
    """How many laptops were back after how many seconds."""

    seconds: float
    laptops: int

    def __str__(self) -> str:
        return f"{self.laptops} in {self.seconds:.1f}"


@dataclass(frozen=True)
class Outcome:
    """Seconds, but for `flood`: log-ins of the thief that sshd took, a second."""

    bound: str
    quiet: float
    """An honest log-in without a flood, median."""
    flooded: float
    """The same in the flood, median."""
    worst: float
    flood: float
    back: Back
    """The laptops of the office after a restart of sshd, no flood."""
    back_flooded: Back
    """The same in the flood."""


class Bench:
    """The hosts, the keys and what stands for the laptops' OpenCodes."""

    def __init__(self, stack: ExitStack, directory: Path, laptops: int, flooders: int) -> None:
        self.directory = directory
        self.flooders = flooders
        self.hosts = stack.enter_context(TwoHosts())
        for address in (_HONEST, _THIEF):
            command = ["ip", "address", "add", f"{address}/24", "dev", "cable"]
            subprocess.run([*self.hosts.laptop, *command], check=True)
        stand_ins = stack.enter_context(FakeFleet(directory / "unread", inside=self.hosts.laptop))
        self._local_ports = list(stand_ins.add(laptops).values())
        self.names = [f"laptop{number:03d}" for number in range(laptops)]
        for name in (*self.names, "honest", "thief"):
            make_key(directory / f"key-{name}")

    @contextmanager
    def relay(self, bound: Bound) -> Iterator[ProvisionedRelay]:
        with ProvisionedRelay(
            self.directory,
            ports=PORTS,
            block=BLOCK,
            address=self.hosts.relay_address,
            inside=(*self.hosts.relay, *_ON_RELAY),
            per_source=bound.per_source,
        ) as relay:
            relay.enrol(*self.names, "honest", "thief")
            if bound.rate:
                rules = _RULES.format(port=relay.sshd.port, rate=bound.rate, burst=BURST)
                subprocess.run([*self.hosts.relay, "nft", "-f", "-"], input=rules, text=True, check=True)
            try:
                yield relay
            finally:
                if bound.rate:
                    subprocess.run([*self.hosts.relay, "nft", "delete", "table", "inet", "ssh_rate"], check=True)

    def lines(self, relay: ProvisionedRelay) -> list[Line]:
        return [
            Line(relay.ssh_command(name), tuple(relay.ports_of(name)), local_port, f"{name}-api", f"{number:032x}")
            for number, (name, local_port) in enumerate(zip(self.names, self._local_ports, strict=True))
        ]

    def log_in(self, relay: ProvisionedRelay, name: str, address: str, *prefix: str) -> subprocess.Popen[bytes]:
        """Begin a log-in of a client."""
        command = [*shlex.split(relay.ssh_command(name)), "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
        return subprocess.Popen(
            [*self.hosts.laptop, *_ON_CLIENTS, *prefix, *command, "-b", address, "true"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def honest(self, relay: ProvisionedRelay) -> float:
        """Return how long it takes until the relay serves an honest laptop."""
        began = time.monotonic()
        while time.monotonic() - began < _GIVE_UP_SECONDS:
            with self.log_in(relay, "honest", _HONEST) as ssh:
                assert ssh.stdout is not None
                is_served = b'"ready"' in ssh.stdout.readline()
                seconds = time.monotonic() - began
                ssh.kill()
            time.sleep(_PAUSE_SECONDS)
            if is_served:
                return seconds
        return _GIVE_UP_SECONDS

    @contextmanager
    def flood(self, relay: ProvisionedRelay) -> Iterator[None]:
        """Log in with the stolen key as often as can be, as long as the context lasts."""
        over = threading.Event()

        def log_in_again() -> None:
            while not over.is_set():
                with self.log_in(relay, "thief", _THIEF, *_LAST) as ssh:
                    told, _ = ssh.communicate()
                if not told:  # refused: only to start an ssh would take the processor from the honest
                    over.wait(1.0)

        threads = [threading.Thread(target=log_in_again) for _ in range(self.flooders)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def measure(self, bound: Bound) -> Outcome:
        """Try one bound."""
        with (
            self.relay(bound) as relay,
            ManyLines("launcher", inside=(*self.hosts.laptop, *_ON_CLIENTS)) as running,
        ):
            office = Provisioned(relay)
            lines = self.lines(relay)
            for first in range(0, len(lines), WAVE):
                running.start(lines[first : first + WAVE])
                office.until_up(min(first + WAVE, len(lines)))
            quiet = [self.honest(relay) for _ in range(_LOG_INS)]
            back = self._back(office, len(lines))
            with self.flood(relay):
                began, taken = time.monotonic(), _taken(relay)
                flooded = []
                while time.monotonic() - began < _FLOODED_SECONDS:
                    flooded.append(self.honest(relay))
                rate = (_taken(relay) - taken) / (time.monotonic() - began)
                back_flooded = self._back(office, len(lines))
        return Outcome(
            bound=str(bound),
            quiet=statistics.median(quiet),
            flooded=statistics.median(flooded),
            worst=max(flooded),
            flood=rate,
            back=back,
            back_flooded=back_flooded,
        )

    @staticmethod
    def _back(office: Provisioned, count: int) -> Back:
        """Restart sshd, and see how the laptops come back."""
        ended = time.time()
        office.sshd.restart()
        began = time.monotonic()
        while (there := office.up(ended)) < count and time.monotonic() - began < _BACK_SECONDS:
            time.sleep(LOOK_SECONDS)
        return Back(time.monotonic() - began, there)


def _taken(relay: ProvisionedRelay) -> int:
    """Count the thief's log-ins that sshd has taken."""
    accepted = f"Accepted publickey for {relay.tunnel_user} from {_THIEF} "
    return relay.sshd.log.read_text(errors="replace").count(accepted)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--laptops", type=int, default=300, help="behind one address (%(default)s)")
    parser.add_argument(
        "--flooders", type=int, default=100, help="log-ins that the thief begins at once (%(default)s)"
    )
    parser.add_argument("bounds", nargs="*", type=Bound.parse, default=[Bound.parse(text) for text in BOUNDS])
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flood-bench-")))
        bench = Bench(stack, directory, options.laptops, options.flooders)
        outcomes = [bench.measure(bound) for bound in options.bounds]
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
        return
    table = Table(
        "bound", "quiet", "in flood", "worst", "flood/s", "office back", "in flood", title="Log-ins, seconds"
    )
    for outcome in outcomes:
        values = (outcome.quiet, outcome.flooded, outcome.worst, outcome.flood)
        backs = (str(outcome.back), str(outcome.back_flooded))
        table.add_row(outcome.bound, *(f"{value:.3g}" for value in values), *backs)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
