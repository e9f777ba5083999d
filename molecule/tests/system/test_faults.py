"""What breaks on the relay itself, and that it mends itself behind the same walls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.hosts.scenario import BACK_WITHIN, GONE_WITHIN, all_registered, back
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.hosts.scenario import Attacker, Machine, ScenarioRelay, SeenRegistration

# A reboot, and all that comes back after it, take their time on a machine that has other work.
pytestmark = pytest.mark.timeout(600)

_GET = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
"""


def test_when_the_agent_is_killed_nothing_stays_registered_and_all_come_back(
    relay: ScenarioRelay, machines: list[Machine], fleet: dict[str, SeenRegistration]
) -> None:
    agent, sessions = relay.agent_pid(), relay.connections()
    relay.run("systemctl", "mask", "--runtime", "opencode-relay-agent.service")
    relay.run("systemctl", "kill", "--signal", "KILL", "--kill-whom", "main", "opencode-relay-agent.service")
    try:
        eventually(lambda: not relay.registrations(), "the registry is empty", within=GONE_WITHIN)
        eventually(lambda: not sessions & relay.connections(), "no session goes on unseen", within=GONE_WITHIN)
    finally:
        relay.run("systemctl", "unmask", "--runtime", "opencode-relay-agent.service")
        relay.run("systemctl", "start", "opencode-relay-agent.socket", "opencode-relay-agent.service")
    for machine in machines:
        back(relay, machine, fleet)
    assert relay.agent_pid() != agent


def test_an_agent_that_hangs_is_replaced_and_all_come_back(
    relay: ScenarioRelay, machines: list[Machine], fleet: dict[str, SeenRegistration]
) -> None:
    agent = relay.agent_pid()
    relay.run("kill", "-STOP", str(agent))
    # systemd's watchdog gives it 10 s; nothing else replaces it.
    eventually(lambda: relay.agent_pid() not in (agent, 0), "another agent", within=BACK_WITHIN)
    for machine in machines:
        back(relay, machine, fleet)


def test_sshd_restarts_without_anybody_noticing(relay: ScenarioRelay, fleet: dict[str, SeenRegistration]) -> None:
    before = relay.connections()
    relay.run("systemctl", "restart", "ssh.service")
    assert before <= relay.connections()
    assert fleet.items() <= relay.registrations().items()


def test_the_walls_stand_after_nftables_has_dropped_all_tables(relay: ScenarioRelay) -> None:
    # Docker's own rules are lost until the next reboot, and with them the container's name server.
    for action in ("restart", "reload", "stop"):
        relay.run("systemctl", action, "nftables.service")
        if action == "stop":  # the next start loads them again
            relay.run("systemctl", "start", "nftables.service")
        assert "meta skuid" in relay.output("nft", "list", "table", "inet", "opencode_relay"), action


def test_after_a_reboot_of_the_relay_everybody_is_back_behind_the_same_walls(
    relay: ScenarioRelay,
    machines: list[Machine],
    fleet: dict[str, SeenRegistration],
    ordinary: Attacker,
    figure: Callable[[str, float], None],
) -> None:
    relay.reboot()
    for machine in machines:
        figure(f"relay rebooted: {machine.client} registered again", back(relay, machine, fleet))
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
    relay: ScenarioRelay, machines: list[Machine], fleet: dict[str, SeenRegistration]
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


def test_the_registry_is_emptied_and_the_walls_stand_before_sshd_and_docker_start(relay: ScenarioRelay) -> None:
    before_sshd = relay.output("systemctl", "list-dependencies", "--after", "--plain", "ssh.service").split()
    units = {"systemd-tmpfiles-setup.service", "opencode-relay-firewall.service", "opencode-relay-agent.service"}
    assert units <= set(before_sshd)
    # Docker is not there yet; whoever orders itself before it will be.
    for unit in ("opencode-relay-firewall.service", "opencode-relay-agent.service"):
        assert "docker.service" in relay.output("systemctl", "show", "--value", "-p", "Before", unit).split()


def test_no_unit_waits_for_another_in_a_circle(relay: ScenarioRelay) -> None:
    # systemd would break it at each boot anew, by starting one of them not at all.
    assert "cycle" not in relay.run("systemd-analyze", "verify", "default.target", check=False).stderr
