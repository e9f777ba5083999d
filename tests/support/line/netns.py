"""Two hosts and the network between them, as Linux namespaces: what can go wrong there, done to it. Needs root."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from support.waiting import eventually

if TYPE_CHECKING:
    from types import TracebackType

_NUMBERS = itertools.count()


class TwoHosts:
    """A laptop and a relay, joined by a cable.

    `laptop` and `relay` are what to put before a command to run it there.
    """

    relay_address = "10.77.0.1"
    new_relay_address = "10.77.0.251"
    """Where the relay is as well, and alone once it has `moved`."""
    relay_name = "relay.test"
    """What the laptop, and nobody else, knows the relay by."""

    def __init__(self) -> None:
        unique = f"oc{os.getpid()}n{next(_NUMBERS)}"
        self._laptop = f"{unique}-laptop"
        self._relay = f"{unique}-relay"
        self.laptop = ("ip", "netns", "exec", self._laptop)
        self.relay = ("ip", "netns", "exec", self._relay)
        self._hosts_file = Path("/etc/netns") / self._laptop / "hosts"
        self._host_parts = itertools.cycle(range(2, 250))
        self._address = self._next_address()

    def __enter__(self) -> Self:
        for name in (self._laptop, self._relay):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        cable = ("type", "veth", "peer", "name", "cable", "netns", self._relay)
        _run("ip", "-n", self._laptop, "link", "add", "cable", *cable)
        _run("ip", "-n", self._relay, "address", "add", f"{self.relay_address}/24", "dev", "cable")
        _run("ip", "-n", self._laptop, "address", "add", self._address, "dev", "cable")
        _run("ip", "-n", self._relay, "address", "add", f"{self.new_relay_address}/24", "dev", "cable")
        for name in (self._laptop, self._relay):
            _run("ip", "-n", name, "link", "set", "cable", "up")
        # Whatever runs there sees it in the place of /etc/hosts.
        self._hosts_file.parent.mkdir(parents=True)
        self._name_leads_to(self.relay_address)
        eventually(self._is_up, "both ends of the cable are up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in (self._laptop, self._relay):
            _run("ip", "netns", "delete", name)
        shutil.rmtree(self._hosts_file.parent)

    def link_down(self) -> None:
        """Switch the laptop's interface off, as a lost Wi-Fi does."""
        _run("ip", "-n", self._laptop, "link", "set", "cable", "down")

    def link_up(self) -> None:
        """Switch it on again, with the address it had."""
        _run("ip", "-n", self._laptop, "link", "set", "cable", "up")

    def cut(self) -> None:
        """Lose every packet from now on, without anybody being told."""
        rules = "table inet cut { chain in { type filter hook input priority 0; iifname cable drop; }; "
        rules += "chain out { type filter hook output priority 0; oifname cable drop; }; }"
        _run(*self.relay, "nft", rules)

    def mend(self) -> None:
        """Lose none any more."""
        _run(*self.relay, "nft", "delete", "table", "inet", "cut")

    def slow_uplink(self, kbit: int, *, queue_bytes: int = 128 * 1024) -> None:
        """Let the laptop send so many kilobits a second, as a home's modem does, which keeps a long queue."""
        shape = ("tbf", "rate", f"{kbit}kbit", "burst", "4kb", "limit", str(queue_bytes))
        # It fills queues as what most machines have, and every kernel lets a namespace have it.
        _run(*self.laptop, "sysctl", "--quiet", "--write", "net.ipv4.tcp_congestion_control=reno")
        _run("tc", "-n", self._laptop, "qdisc", "replace", "dev", "cable", "root", *shape)

    def sent_bytes(self) -> int:
        """Return what the laptop has sent so far."""
        command = ["ip", "-n", self._laptop, "-json", "-statistics", "link", "show", "cable"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        sent: int = json.loads(shown)[0]["stats64"]["tx"]["bytes"]
        return sent

    def move_relay(self) -> None:
        """Have the relay's name lead to its new address; what is for the old one is lost without a word."""
        rules = "table inet moved {{ chain in {{ type filter hook input priority 0; ip daddr {0} drop; }}; "
        rules += "chain out {{ type filter hook output priority 0; ip saddr {0} drop; }}; }}"
        _run(*self.relay, "nft", rules.format(self.relay_address))
        self._name_leads_to(self.new_relay_address)

    def _name_leads_to(self, address: str) -> None:
        # In place: what is seen there is this very file.
        self._hosts_file.write_text(f"127.0.0.1 localhost\n{address} {self.relay_name}\n")

    def drop_at_relay(self, port: int) -> None:
        """Lose what goes to this port on the relay's loopback: a tunnel that is up and does not carry."""
        rules = f"table inet port {{ chain in {{ type filter hook input priority 0; tcp dport {port} drop; }}; }}"
        _run(*self.relay, "nft", rules)

    def take_ports_at_relay(self) -> None:
        """Leave no port for whoever asks the relay for any one."""
        _run(*self.relay, "sysctl", "--quiet", "--write", "net.ipv4.ip_local_reserved_ports=1024-65535")

    def give_ports_at_relay(self) -> None:
        """Have enough of them again."""
        _run(*self.relay, "sysctl", "--quiet", "--write", "net.ipv4.ip_local_reserved_ports=1024")

    def change_address(self) -> None:
        """Give the laptop another address; what goes to the old one is lost."""
        old, self._address = self._address, self._next_address()
        _run("ip", "-n", self._laptop, "address", "add", self._address, "dev", "cable")
        _run("ip", "-n", self._laptop, "address", "delete", old, "dev", "cable")
        # The second address of a subnet goes with the first, unless it is promoted: then it is there already.
        _run("ip", "-n", self._laptop, "address", "replace", self._address, "dev", "cable")

    def relay_listeners(self) -> set[int]:
        """Return the TCP ports that the relay listens on."""
        command = [*self.relay, "ss", "--no-header", "--listening", "--tcp", "--numeric"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return {int(line.split()[3].rpartition(":")[2]) for line in lines}

    def _next_address(self) -> str:
        return f"10.77.0.{next(self._host_parts)}/24"

    def _is_up(self) -> bool:
        ends = [
            subprocess.run(["ip", "-n", name, "link", "show", "cable"], capture_output=True, text=True, check=True)
            for name in (self._laptop, self._relay)
        ]
        return all("state UP" in end.stdout for end in ends)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
