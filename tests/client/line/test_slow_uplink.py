"""A line whose way up is full of the tunnel's own data, between two hosts that are network namespaces."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from relay.provisioned import ProvisionedRelay
from support.line.line_program import LineProgram
from support.line.netns import TwoHosts
from support.line.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KBIT = 256
_BYTES = 800_000
"""25 s on such a way: twice what either end allows for silence."""


@contextmanager
def line_to_an_account(directory: Path, hosts: TwoHosts) -> Iterator[LineProgram]:
    with (
        Sshd(directory / "relay", address=hosts.relay_address, inside=hosts.relay) as sshd,
        LineProgram(sshd.ssh_command, directory / "registry", inside=hosts.laptop) as program,
    ):
        yield program


@contextmanager
def line_to_a_provisioned_relay(directory: Path, hosts: TwoHosts) -> Iterator[LineProgram]:
    with ProvisionedRelay(directory, address=hosts.relay_address, inside=hosts.relay) as relay:
        relay.enrol("laptop")
        ports = relay.ports_of("laptop")
        with LineProgram(relay.ssh_command("laptop"), directory, ports=ports, inside=hosts.laptop) as program:
            yield program


def test_data_that_fills_the_way_up_breaks_no_line(tmp_path: Path) -> None:
    with ExitStack() as stack:
        pulls: dict[str, tuple[LineProgram, subprocess.Popen[bytes]]] = {}
        for line in (line_to_an_account, line_to_a_provisioned_relay):  # side by side, as it takes its time
            directory = tmp_path / line.__name__
            directory.mkdir()
            hosts = stack.enter_context(TwoHosts())
            launcher = stack.enter_context(line(directory, hosts))
            port = launcher.wait_for("registered").state["port"]
            hosts.slow_uplink(_KBIT)
            curl = [*hosts.relay, "curl", "--silent", f"http://127.0.0.1:{port}/bytes/{_BYTES}"]
            pull = stack.enter_context(subprocess.Popen(curl, stdout=subprocess.PIPE))
            pulls[line.__name__] = launcher, pull

        for name, (launcher, pull) in pulls.items():
            answer, _ = pull.communicate()
            assert len(answer) == _BYTES, name
            assert [event.kind for event in launcher.events] == ["connected", "registered"], name
