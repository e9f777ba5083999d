"""Prints what a provisioned relay costs, beside bare `ssh -N -R` to an sshd of the same settings. Needs root.

python tests/bench/scale.py [--json] [--runs N] [--reconnecting N] [--held N]

Relay and laptops are two network namespaces of this machine: all laptops come from one address, and their ssh shares
the processors with sshd. Seconds are to be compared with those of bare ssh in the same run, and with nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.table import Table

from relay.provisioned import ProvisionedRelay, sshd_options
from support.chat.raw_stdio import raw_server
from support.fleet.registry import register, registration
from support.line.many_lines import Line, ManyLines
from support.line.netns import TwoHosts
from support.line.sshd import Sshd, unix_user
from support.opencodes.fake_fleet import FakeFleet
from support.processes import name_of
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from support.chat.raw_stdio import RawServer
    from support.line.many_lines import Kind

# The defaults of the roles.
PORTS = range(10_000, 20_000)
BLOCK = 16
WAVE = 50
"""Lines that are started at once where that is not what is measured."""
CALLS = 30
LOOK_SECONDS = 0.1
"""Between two looks at how many lines are up: seldom enough to cost nothing."""
GIVE_UP_SECONDS = 180.0
MOST_TIME = 1.3
"""Times bare ssh."""
MOST_MEMORY = 4.0
"""MB an instance, beyond sshd's own."""


class Relay(ABC):
    """A relay that many clients log in to: one of the two kinds that are compared."""

    kind: Kind

    def __init__(self, sshd: Sshd, registry: Path) -> None:
        self.sshd = sshd
        self.registry = registry

    @abstractmethod
    def up(self, since: float) -> int:
        """Return how many lines stand that were made after `since`, in seconds since the epoch."""

    def complete(self, lines: Iterable[Line]) -> None:
        """Do for a reader of the registry what this relay does not do by itself, now that these lines stand."""
        del lines

    def helpers(self) -> list[psutil.Process]:
        """Return the relay's processes that are not sshd's."""
        return [process for process in self.sshd.sessions() if not name_of(process).startswith("sshd")]

    def until_up(self, count: int, since: float = 0.0) -> None:
        """Wait until so many lines stand."""
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while (up := self.up(since)) < count:
            if time.monotonic() > give_up:
                raise RuntimeError(f"{up} of {count} lines are up after {GIVE_UP_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)


class Provisioned(Relay):
    """Forced commands and the agent: a line stands when it is registered."""

    kind = "launcher"

    def __init__(self, relay: ProvisionedRelay) -> None:
        super().__init__(relay.sshd, relay.registry)
        self._relay = relay

    def up(self, since: float) -> int:
        count = 0
        for path in self.registry.glob("[!.]*.json"):
            with suppress(FileNotFoundError):
                count += path.stat().st_mtime > since
        return count

    def helpers(self) -> list[psutil.Process]:
        return [psutil.Process(self._relay.agent.pid), *super().helpers()]


class Bare(Relay):
    """The same keys without a command, on an sshd that lets connections stay that run none."""

    kind = "bare"

    def up(self, since: float) -> int:
        del since  # a listener ends with its sshd
        listening = set()
        for line in Path(f"/proc/{self.sshd.pid}/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                listening.add(int(local.rpartition(":")[2], 16))
        return sum(port in PORTS for port in listening)

    def complete(self, lines: Iterable[Line]) -> None:
        for line in lines:
            register(self.registry, registration(line.name, line.ports[0]))


@dataclass(frozen=True)
class Cost:
    """What one kind of relay costs."""

    again: float
    """Seconds until all lines stand again after sshd was restarted, median."""
    refused: int
    """Tries that sshd refused meanwhile, in all runs."""
    sshd: float
    """MB an instance of sshd's processes, with all lines held."""
    beside: float
    """MB an instance of all else that runs on the relay for them."""
    instances: float
    """Seconds of a call of `instances`, median."""
    stalest: float
    """Seconds from a change of all instances at once until the last is shown."""


class Bench:
    """The hosts, the clients with their keys, and what stands for their OpenCodes."""

    def __init__(self, stack: ExitStack, directory: Path, held: int) -> None:
        self.directory = directory
        self.hosts = stack.enter_context(TwoHosts())
        self.held = held
        self._stand_ins = stack.enter_context(FakeFleet(directory / "unread", inside=self.hosts.laptop))
        self._local_ports = list(self._stand_ins.add(held).values())
        # As many clients as the ports are enough for, each with as few lines as that allows.
        self.names = [f"laptop{number:03d}" for number in range(min(held, len(PORTS) // BLOCK))]
        for client in range(len(self.names)):
            make_key(self._key(client))

    @contextmanager
    def provisioned(self) -> Iterator[Provisioned]:
        with ProvisionedRelay(
            self.directory, ports=PORTS, block=BLOCK, address=self.hosts.relay_address, inside=self.hosts.relay
        ) as relay:
            relay.enrol(*self.names)
            yield Provisioned(relay)

    @contextmanager
    def bare(self) -> Iterator[Bare]:
        directory = self.directory / "bare"
        directory.mkdir()
        with unix_user("sh") as user, tempfile.TemporaryDirectory(dir="/run") as readable:
            Path(readable).chmod(0o755)
            keys = Path(readable) / "authorized_keys"
            keys.write_text("".join(map(self._key_line, range(len(self.names)))))
            options = sshd_options(user, AuthorizedKeysFile=str(keys), UnusedConnectionTimeout="none")
            with Sshd(
                directory, user=user, options=options, address=self.hosts.relay_address, inside=self.hosts.relay
            ) as sshd:
                yield Bare(sshd, directory / "registry")

    def _key_line(self, client: int) -> str:
        permits = ",".join(f'permitlisten="127.0.0.1:{port}"' for port in block(client))
        return f"restrict,port-forwarding,{permits} {self._key(client).with_suffix('.pub').read_text()}"

    def _key(self, client: int) -> Path:
        return self.directory / f"key-{self.names[client]}"

    def lines(self, sshd: Sshd) -> list[Line]:
        """Return all lines; the clients take turns."""
        lines = []
        for number, local_port in enumerate(self._local_ports):
            turn, client = divmod(number, len(self.names))
            command = sshd.ssh_command.replace(str(sshd.client_key), str(self._key(client)))
            ports = block(client)[turn:]
            name = f"{self.names[client]}-project{turn}"
            lines.append(Line(command, tuple(ports), local_port, name, f"{number:032x}"))
        return lines

    def measure(self, relay: Relay, *, reconnecting: int, runs: int) -> Cost:
        """Measure one kind."""
        lines = self.lines(relay.sshd)
        with ManyLines(relay.kind, inside=self.hosts.laptop) as running:
            start(running, relay, lines, 0, reconnecting)
            seconds = []
            log_before = relay.sshd.log.stat().st_size
            for _ in range(runs):
                ended = time.time()
                relay.sshd.restart()
                began = time.monotonic()
                relay.until_up(reconnecting, ended)
                seconds.append(time.monotonic() - began)
            refused = refusals(relay.sshd.log.read_bytes()[log_before:])
            start(running, relay, lines, reconnecting, self.held)
            relay.complete(lines)
            instances, stalest = asyncio.run(self._seen(relay))
            sshds = [process for process in relay.sshd.sessions() if name_of(process).startswith("sshd")]
            return Cost(
                again=statistics.median(seconds),
                refused=refused,
                sshd=megabytes(sshds) / self.held,
                beside=megabytes(relay.helpers()) / self.held,
                instances=instances,
                stalest=stalest,
            )

    async def _seen(self, relay: Relay) -> tuple[float, float]:
        """Measure what a server on the relay sees of all lines."""
        self._stand_ins.be_busy(busy=False)
        async with raw_server(relay.registry, inside=self.hosts.relay) as server:
            await eventually_async(lambda: shows(server, "idle", self.held), "the fleet", within=GIVE_UP_SECONDS)
            calls = []
            for _ in range(CALLS):
                began = time.monotonic()
                await server.call("instances")
                calls.append(time.monotonic() - began)
            began = time.monotonic()
            self._stand_ins.be_busy(busy=True)
            await eventually_async(lambda: shows(server, "busy", self.held), "the change", within=GIVE_UP_SECONDS)
            return statistics.median(calls), time.monotonic() - began


def make_key(path: Path) -> None:
    """Make a key pair."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def block(client: int) -> range:
    """Return the ports of the client of that number, as they are assigned to the first ones enrolled."""
    return PORTS[client * BLOCK : (client + 1) * BLOCK]


def start(running: ManyLines, relay: Relay, lines: list[Line], first: int, end: int) -> None:
    """Start some of the lines, wave by wave."""
    for wave in range(first, end, WAVE):
        upto = min(wave + WAVE, end)
        running.start(lines[wave:upto])
        relay.until_up(upto)


def refusals(log: bytes) -> int:
    """Count the connections that sshd's limits refused."""
    return log.count(b"drop connection #")


async def shows(server: RawServer, state: str, count: int) -> bool:
    """Tell whether so many instances are listed in that state."""
    listed = json.loads(await server.call("instances"))["result"]["structuredContent"]
    states = Counter(row["state"] for row in listed["instances"]) + Counter(listed.get("left_out"))
    return states[state] == count


def megabytes(processes: Iterable[psutil.Process]) -> float:
    """Return the proportional memory of processes."""
    total = 0
    for process in processes:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1000


@dataclass(frozen=True)
class Figure:
    """A value of both kinds."""

    what: str
    unit: str
    bare: float
    relay: float
    promise: str = ""
    is_kept: bool = True

    @property
    def ratio(self) -> str:
        """What the relay takes, in times bare ssh."""
        return f"{self.relay / self.bare:.2f}" if self.bare else ""

    @property
    def verdict(self) -> str:
        """Say whether the promise is kept."""
        return "" if not self.promise else "ok" if self.is_kept else "OVER"


def compare(bare: Cost, relay: Cost, *, reconnecting: int, held: int) -> list[Figure]:
    """Put the two beside each other."""
    return [
        Figure(
            f"{reconnecting} reconnect after a restart of sshd, until all are there, median",
            "s",
            bare.again,
            relay.again,
            f"{MOST_TIME} times bare",
            relay.again <= MOST_TIME * bare.again,
        ),
        Figure("tries that sshd refused meanwhile, all runs", "", bare.refused, relay.refused),
        Figure(f"{held} held: memory of sshd, an instance", "MB", bare.sshd, relay.sshd),
        Figure(
            f"{held} held: memory beside sshd, an instance",
            "MB",
            bare.beside,
            relay.beside,
            f"{MOST_MEMORY:g} MB",
            relay.beside <= MOST_MEMORY,
        ),
        Figure(f"{held} held: `instances`, median", "ms", bare.instances * 1000, relay.instances * 1000),
        Figure(f"{held} held: age of the stalest state shown", "s", bare.stalest, relay.stalest),
    ]


def measure(reconnecting: int, held: int, runs: int) -> list[Figure]:
    """Measure both kinds, one after the other."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))
        bench = Bench(stack, directory, held)
        costs = []
        for kind in (bench.bare, bench.provisioned):
            with kind() as relay:
                costs.append(bench.measure(relay, reconnecting=reconnecting, runs=runs))
    return compare(*costs, reconnecting=reconnecting, held=held)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=3, help="restarts of sshd (%(default)s)")
    parser.add_argument("--reconnecting", type=int, default=300, help="launchers at a restart (%(default)s)")
    parser.add_argument("--held", type=int, default=1000, help="tunnels held, at least as many (%(default)s)")
    options = parser.parse_args()
    figures = measure(options.reconnecting, options.held, options.runs)
    if options.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=1))
        return
    table = Table("figure", "", "bare ssh", "relay", "ratio", "at most", "", title="A provisioned relay")
    for figure in figures:
        row = (f"{figure.bare:.3g}", f"{figure.relay:.3g}", figure.ratio, figure.promise, figure.verdict)
        table.add_row(figure.what, figure.unit, *row)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
