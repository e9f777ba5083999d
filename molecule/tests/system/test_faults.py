"""What breaks in the middle of use, and that it mends itself."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from support.scenario import all_registered
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.scenario import Attacker, Machine, Registration, Relay

GONE_WITHIN = 15.0
"""Seconds: no registration outlives its session by more."""
BACK_WITHIN = 60.0
"""Seconds from the end of the fault. A launcher takes 0.5 to 10, where the machine has no other work."""

_GET = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
"""


def _back(relay: Relay, machine: Machine, before: dict[str, Registration]) -> float:
    """Wait until all instances of the machine are registered anew, under their names; return for how many seconds."""
    began = time.monotonic()
    awaited = {name: old.connected_at for name, old in before.items() if old.client == machine.client}

    def registered_anew() -> bool:
        now = {name: entry.connected_at for name, entry in relay.registered(machine.client).items()}
        assert now.keys() == awaited.keys()
        assert all(now[name] != awaited[name] for name in awaited), now
        return True

    eventually(registered_anew, f"{machine.client} is back", within=BACK_WITHIN)
    return time.monotonic() - began


def _kill_agent(relay: Relay) -> None:
    relay.run("kill", "-KILL", str(relay.agent_pid()))


def _restart_sshd_and_its_sessions(relay: Relay) -> None:
    connections = [str(pid) for pid in relay.connections()]
    relay.run("systemctl", "restart", "ssh.service")
    relay.run("kill", "-KILL", *connections)


@pytest.mark.parametrize("fault", [_kill_agent, _restart_sshd_and_its_sessions])
def test_a_turn_goes_on_through(
    relay: Relay,
    laptop: Machine,
    fleet: dict[str, Registration],
    fault: Callable[[Relay], None],
    figure: Callable[[str, float], None],
) -> None:
    name = f"{laptop.client}-api"
    status = f"http://127.0.0.1:{fleet[name].port}/session/status"
    marker = fault.__name__
    message = f"SLOW:50:0.2 {marker}"
    with relay.tools(
        ("send", {"instance": name, "message": message, "session": "new"}), ("read", {"instance": name})
    ) as client:
        eventually(lambda: "busy" in relay.python(_GET, status, user=relay.gateway_user).stdout, "the turn runs")
        fault(relay)
        figure(f"{fault.__name__.strip('_')}, in mid-turn: registered again", _back(relay, laptop, fleet))
        assert client.ended() == 0, client.errors
        sent, read = (json.loads(line) for line in client.lines)
    assert not sent["is_error"]
    assert "word50" in sent["text"]
    assert read["text"].count(f"user: {message}") == 1


def test_when_the_agent_is_killed_nothing_stays_registered_and_all_come_back(
    relay: Relay, machines: list[Machine], fleet: dict[str, Registration]
) -> None:
    agent = relay.agent_pid()
    relay.run("systemctl", "mask", "--runtime", "opencode-relay-agent.service")
    relay.run("systemctl", "kill", "--signal", "KILL", "--kill-whom", "main", "opencode-relay-agent.service")
    try:
        eventually(lambda: not relay.registrations(), "the registry is empty", within=GONE_WITHIN)
        eventually(lambda: not relay.connections(), "no session goes on unseen", within=GONE_WITHIN)
    finally:
        relay.run("systemctl", "unmask", "--runtime", "opencode-relay-agent.service")
        relay.run("systemctl", "start", "opencode-relay-agent.socket", "opencode-relay-agent.service")
    for machine in machines:
        _back(relay, machine, fleet)
    assert relay.agent_pid() != agent


def test_an_agent_that_hangs_is_replaced_and_all_come_back(
    relay: Relay, machines: list[Machine], fleet: dict[str, Registration]
) -> None:
    agent = relay.agent_pid()
    relay.run("kill", "-STOP", str(agent))
    eventually(lambda: relay.agent_pid() not in (agent, 0), "another agent", within=GONE_WITHIN)
    for machine in machines:
        _back(relay, machine, fleet)


def test_sshd_restarts_without_anybody_noticing(relay: Relay, fleet: dict[str, Registration]) -> None:
    before = relay.connections()
    relay.run("systemctl", "restart", "ssh.service")
    assert before <= relay.connections()
    assert fleet.items() <= relay.registrations().items()


@contextmanager
def _cut(relay: Relay, address: str) -> Iterator[None]:
    """Lose every packet between the relay and an address, without anybody being told."""
    chains = "chain in { type filter hook input priority -10; ip saddr %s drop; }; "
    chains += "chain out { type filter hook output priority -10; ip daddr %s drop; }; "
    relay.run("nft", "table ip cut { " + chains % (address, address) + "}")
    try:
        yield
    finally:
        relay.run("nft", "delete", "table", "ip", "cut")


def test_a_client_whose_network_is_cut_is_off_the_list_and_back_with_its_network(
    relay: Relay,
    laptop: Machine,
    desktop: Machine,
    fleet: dict[str, Registration],
    figure: Callable[[str, float], None],
) -> None:
    with _cut(relay, laptop.host.address()):
        # The last message may have come just before: 5 s between two of them, and 15 s after the last.
        eventually(lambda: not relay.registered(laptop.client), "it is off the list", within=GONE_WITHIN + 5)
    figure("network cut, then given back: registered again", _back(relay, laptop, fleet))
    others = {name: entry for name, entry in fleet.items() if entry.client == desktop.client}
    assert others.items() <= relay.registrations().items()


def test_a_client_that_gets_another_address_comes_back_from_there(
    relay: Relay, laptop: Machine, fleet: dict[str, Registration], figure: Callable[[str, float], None]
) -> None:
    device, old, length = laptop.host.interface()
    route = laptop.host.output("ip", "route", "show", "default").split()
    new = ".".join([*old.split(".")[:2], "250", "250"])

    def move(before: str, after: str) -> None:
        laptop.host.run("ip", "address", "add", f"{after}/{length}", "dev", device)
        laptop.host.run("ip", "address", "delete", f"{before}/{length}", "dev", device)
        # The second address of a subnet goes with the first, unless it is promoted: then it is there already.
        laptop.host.run("ip", "address", "replace", f"{after}/{length}", "dev", device)

    move(old, new)
    try:
        figure("another address, the old path black-holed: registered again", _back(relay, laptop, fleet))
        assert f"client {laptop.client} connected from {new} " in relay.journal()
    finally:
        again = relay.registrations()
        move(new, old)
        laptop.host.run("ip", "route", "replace", *route)
    _back(relay, laptop, again)


def test_a_session_whose_launcher_hangs_is_ended_after_15_s_of_silence(
    relay: Relay, desktop: Machine, fleet: dict[str, Registration]
) -> None:
    pattern = "ssh .*-R 127.0.0.1:"
    desktop.host.run("pkill", "-STOP", "-u", desktop.person, "-f", pattern)
    try:
        eventually(lambda: not relay.registered(desktop.client), "it is off the list", within=GONE_WITHIN + 5)
    finally:
        desktop.host.run("pkill", "-CONT", "-u", desktop.person, "-f", pattern, check=False)
    _back(relay, desktop, fleet)


def test_the_walls_stand_after_nftables_has_dropped_all_tables(relay: Relay) -> None:
    # Docker's own rules are lost until the next reboot, and with them the container's name server.
    for action in ("restart", "reload", "stop"):
        relay.run("systemctl", action, "nftables.service")
        if action == "stop":  # the next start loads them again
            relay.run("systemctl", "start", "nftables.service")
        assert "meta skuid" in relay.output("nft", "list", "table", "inet", "opencode_relay"), action


def test_after_a_reboot_of_the_relay_everybody_is_back_behind_the_same_walls(
    relay: Relay,
    machines: list[Machine],
    fleet: dict[str, Registration],
    ordinary: Attacker,
    figure: Callable[[str, float], None],
) -> None:
    relay.reboot()
    for machine in machines:
        figure(f"relay rebooted: {machine.client} registered again", _back(relay, machine, fleet))
    assert relay.registrations().keys() == fleet.keys()
    port = next(iter(relay.registrations().values())).port
    health = f"http://127.0.0.1:{port}/global/health"
    assert relay.python(_GET, health, user=relay.gateway_user).returncode == 0
    assert "Connection refused" in relay.python(_GET, health, user="ordinary").stderr
    assert "uid=" in ordinary.ssh(to="id").stdout
    assert relay.output("systemctl", "list-units", "--failed", "--no-legend") == ""
    restarts = relay.output("systemctl", "show", "--value", "-p", "NRestarts", "opencode-relay-agent.service")
    assert restarts == "0"


def test_the_registry_is_emptied_at_boot_even_if_the_agent_does_not_start(
    relay: Relay, machines: list[Machine], fleet: dict[str, Registration]
) -> None:
    assert fleet
    inode = relay.output("stat", "--format", "%i %U %G %a", relay.registry_dir)
    relay.run("systemctl", "disable", "opencode-relay-agent.socket", "opencode-relay-agent.service")
    relay.run("systemctl", "stop", "opencode-relay-agent.socket", "opencode-relay-agent.service")
    relay.run("tee", f"{relay.registry_dir}/stale.json", f"{relay.registry_dir}/.stale", stdin="{}\n")
    try:
        relay.reboot()
        assert relay.output("ls", "-A", relay.registry_dir) == ""
        assert relay.output("stat", "--format", "%i %U %G %a", relay.registry_dir) == inode
    finally:
        relay.run("systemctl", "enable", "--now", "opencode-relay-agent.socket", "opencode-relay-agent.service")
    all_registered(relay, machines)


def test_the_registry_is_emptied_and_the_walls_stand_before_sshd_and_docker_start(relay: Relay) -> None:
    before_sshd = relay.output("systemctl", "list-dependencies", "--after", "--plain", "ssh.service").split()
    units = {"systemd-tmpfiles-setup.service", "opencode-relay-firewall.service", "opencode-relay-agent.service"}
    assert units <= set(before_sshd)
    # Docker is not there yet; whoever orders itself before it will be.
    for unit in ("opencode-relay-firewall.service", "opencode-relay-agent.service"):
        assert "docker.service" in relay.output("systemctl", "show", "--value", "-p", "Before", unit).split()
