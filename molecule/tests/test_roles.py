"""What the roles refuse to do, and that a run that has nothing to do does nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from support.hosts import Running
from support.scenario import play

if TYPE_CHECKING:
    from support.scenario import Attacker, Registration, Relay

# A run of Ansible takes its time on a machine that has other work.
pytestmark = pytest.mark.timeout(600)

DROP_INS = "/etc/ssh/sshd_config.d"


@pytest.mark.usefixtures("fleet")
def test_a_check_of_what_is_provisioned_finds_nothing_to_change() -> None:
    played = play("site.yml", "--check", "--diff")
    assert played.succeeded, played.said
    changed = [task for task in re.split(r"(?=TASK \[)", played.said) if re.search(r"\bchanged: \[", task)]
    assert not changed


def test_a_range_that_something_else_listens_in_is_refused_by_the_listeners_name(relay: Relay) -> None:
    port = relay.port_range.partition("-")[0]
    with Running(relay, "python3", "-um", "http.server", "--bind", "127.0.0.1", str(int(port) + 90)) as server:
        server.wait_for(lambda line: "Serving" in line, "a service in the range")
        played = play("relay.yml", "--tags", "relay_firewall_range")
    assert not played.succeeded
    assert "Something else listens in relay_port_range" in played.said
    assert "python3" in played.said


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("10-only.conf", "AllowUsers ordinary root\n", "AllowUsers shuts out"),
        ("00-earlier.conf", "Match User {tunnel}\n    GatewayPorts yes\n    PermitTTY yes\n", "gatewayports no"),
    ],
)
def test_a_configuration_of_sshd_that_defeats_the_roles_own_is_refused(
    relay: Relay, ordinary: Attacker, file: str, content: str, complaint: str
) -> None:
    drop_in = f"{DROP_INS}/00-opencode-relay.conf"
    before = relay.output("cat", drop_in)
    relay.run("tee", f"{DROP_INS}/{file}", stdin=content.format(tunnel=relay.tunnel_user))
    try:
        played = play("relay.yml", "--tags", "relay_sshd_config")
        assert not played.succeeded
        assert complaint in played.said
        assert relay.output("cat", drop_in) == before
        assert "uid=" in ordinary.ssh(to="id").stdout
    finally:
        relay.run("rm", f"{DROP_INS}/{file}")
        relay.run("systemctl", "reload-or-restart", "ssh.service")


def test_ports_that_would_move_under_enrolled_clients_are_refused(
    relay: Relay, fleet: dict[str, Registration]
) -> None:
    before = relay.output("cat", "/etc/opencode-relay/relay.json")
    played = play("relay.yml", "--tags", "relay_agent_settings", "--extra-vars", json.dumps({"relay_block_size": 7}))
    assert not played.succeeded
    assert "relay_block_size" in played.said
    assert relay.output("cat", "/etc/opencode-relay/relay.json") == before
    assert fleet.items() <= relay.registrations().items()
