"""Faults of the network, between two hosts that are network namespaces."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from support.line.line_program import LineProgram
from support.line.netns import TwoHosts
from support.line.sshd import Sshd
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with TwoHosts() as both:
        yield both


@pytest.fixture
def far_relay(hosts: TwoHosts, tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "relay", address=hosts.relay_address, inside=hosts.relay) as sshd:
        yield sshd


@pytest.fixture
def launcher(hosts: TwoHosts, far_relay: Sshd, registry_dir: Path) -> Iterator[LineProgram]:
    with LineProgram(far_relay.ssh_command, registry_dir, inside=hosts.laptop) as program:
        program.wait_for("registered")
        yield program


def test_a_link_that_was_down_is_noticed_when_it_is_back(launcher: LineProgram, hosts: TwoHosts) -> None:
    hosts.link_down()
    # Long enough for the watch to look, and too short for a ping to have been missed.
    down = time.monotonic()
    eventually(lambda: time.monotonic() - down > 4, "several looks of the watch are over")
    hosts.link_up()

    lost = launcher.wait_for("lost")
    assert lost.text == "this machine is back on the network"
    assert launcher.wait_for("registered", since=lost.at).state["health"] == "ok"


def test_a_changed_address_is_noticed_and_the_old_session_ended(
    launcher: LineProgram, hosts: TwoHosts, registry_dir: Path, far_relay: Sshd
) -> None:
    old_port = launcher.events[-1].state["port"]
    hosts.change_address()

    lost = launcher.wait_for("lost")
    assert lost.text == "this machine's address changed"
    again = launcher.wait_for("registered", since=lost.at)

    assert json.loads((registry_dir / "laptop-api.json").read_bytes())["port"] == again.state["port"]
    # The old session hangs on an address that is no more: only the takeover ends it at once, listener included.
    eventually(lambda: old_port not in hosts.relay_listeners(), "the old listener is gone", within=8)


def test_a_half_open_line_is_noticed_by_both_sides(hosts: TwoHosts, far_relay: Sshd, registry_dir: Path) -> None:
    # Without ssh's own checks, which would notice it a little later: it is the pings that do.
    ssh_command = far_relay.ssh_command.replace("ssh", "ssh -o ServerAliveInterval=0", 1)
    with LineProgram(ssh_command, registry_dir, inside=hosts.laptop) as launcher:
        port = launcher.wait_for("registered").state["port"]
        began = time.monotonic()
        hosts.cut()

        assert launcher.wait_for("lost").text == "the relay does not answer"
        eventually(lambda: not list(registry_dir.iterdir()), "the relay gave it up", within=40)
        eventually(lambda: port not in hosts.relay_listeners(), "the relay's listener is gone")
        hosts.mend()

        assert launcher.wait_for("registered", since=began).state["health"] == "ok"


def test_a_relay_that_moved_is_found_where_its_name_leads_to(
    hosts: TwoHosts, tmp_path: Path, registry_dir: Path
) -> None:
    with (
        Sshd(tmp_path / "relay", address="0.0.0.0", name=hosts.relay_name, inside=hosts.relay) as sshd,
        LineProgram(sshd.ssh_command, registry_dir, inside=hosts.laptop) as launcher,
    ):
        launcher.wait_for("registered")
        hosts.move_relay()

        lost = launcher.wait_for("lost")
        assert lost.text == "the relay's name leads to another address now"
        assert launcher.wait_for("registered", since=lost.at).state["health"] == "ok"


def test_a_relay_that_has_no_port_for_a_moment_is_asked_again_soon(
    hosts: TwoHosts, far_relay: Sshd, registry_dir: Path
) -> None:
    hosts.take_ports_at_relay()
    with LineProgram(far_relay.ssh_command, registry_dir, inside=hosts.laptop) as launcher:
        lost = launcher.wait_for("lost")
        assert lost.text == "the relay does not listen for us"
        hosts.give_ports_at_relay()

        # A pause of a minute, as for what a person has to mend, would be longer.
        launcher.wait_for("registered", since=lost.at, within=30)


def test_a_tunnel_that_silently_drops_is_reported(launcher: LineProgram, hosts: TwoHosts) -> None:
    hosts.drop_at_relay(launcher.events[-1].state["port"])

    assert "the tunnel does not carry" in launcher.wait_for("lost").text


def test_kill_9_of_the_launcher_leaves_no_ssh_no_listener_and_no_registration(
    launcher: LineProgram, hosts: TwoHosts, registry_dir: Path, far_relay: Sshd
) -> None:
    port = launcher.events[-1].state["port"]
    assert port in hosts.relay_listeners()

    launcher.kill()

    eventually(lambda: not list(registry_dir.iterdir()), "the registration is gone")
    eventually(lambda: port not in hosts.relay_listeners(), "the listener is gone")
    eventually(lambda: far_relay.sessions() == [], "no session is left")
