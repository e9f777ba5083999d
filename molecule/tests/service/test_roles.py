"""What the roles refuse to do, and that a run that has nothing to do does nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from support.hosts.hosts import RunningProgram
from support.hosts.scenario import play

if TYPE_CHECKING:
    from support.hosts.scenario import Attacker, ScenarioRelay, SeenRegistration

# A run of Ansible takes its time on a machine that has other work.
pytestmark = pytest.mark.timeout(600)

DROP_INS = "/etc/ssh/sshd_config.d"


@pytest.mark.usefixtures("fleet")
def test_a_check_of_what_is_provisioned_finds_nothing_to_change() -> None:
    played = play("site.yml", "--check", "--diff")
    assert played.succeeded, played.said
    changed = [task for task in re.split(r"(?=TASK \[)", played.said) if re.search(r"\bchanged: \[", task)]
    assert not changed


def test_a_range_that_something_else_listens_in_is_refused_by_the_listeners_name(relay: ScenarioRelay) -> None:
    port = relay.port_range.partition("-")[0]
    with RunningProgram(relay, "python3", "-um", "http.server", "--bind", "127.0.0.1", str(int(port) + 90)) as server:
        server.wait_for(lambda line: "Serving" in line, "a service in the range")
        played = play("relay.yml", "--tags", "relay_firewall_range")
    assert not played.succeeded
    assert "Something else listens in relay_port_range" in played.said
    assert "python3" in played.said


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("10-only.conf", "AllowUsers ordinary root\n", "AllowUsers shuts out"),
        ("00-earlier.conf", "Match all\n    GatewayPorts yes\n", "gatewayports no"),
        (
            "00-corp.conf",
            "Match Address 10.0.0.0/8\n    PermitOpen any\nMatch all\n",
            "00-corp.conf has a Match block",
        ),
    ],
)
def test_a_configuration_of_sshd_that_defeats_the_roles_own_is_refused(
    relay: ScenarioRelay, ordinary: Attacker, file: str, content: str, complaint: str
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
        relay.run("systemctl", "restart", "ssh.service")


@pytest.mark.parametrize("moved", [{"relay_block_size": 7}, {"relay_port_range": "23000-23099"}])
def test_ports_that_would_move_under_enrolled_clients_are_refused_before_anything_is_changed(
    relay: ScenarioRelay, fleet: dict[str, SeenRegistration], moved: dict[str, object]
) -> None:
    def state() -> tuple[str, ...]:
        return (
            relay.output("cat", "/etc/opencode-relay/relay.json"),
            relay.output("cat", "/etc/opencode-relay/firewall.nft"),
            relay.output("nft", "list", "table", "inet", "opencode_relay"),
        )

    before = state()
    played = play("relay.yml", "--extra-vars", json.dumps(moved))
    assert not played.succeeded
    assert "relay_block_size" in played.said
    assert state() == before
    assert fleet.items() <= relay.registrations().items()


@pytest.mark.parametrize("setting", ["relay_install_dir", "relay_registry_dir", "relay_state_dir"])
def test_a_directory_that_holds_something_else_is_refused_and_left_alone(relay: ScenarioRelay, setting: str) -> None:
    relay.output("sh", "-c", "mkdir -p /srv/data/backups && echo precious >/srv/data/backups/db.sql")
    before = relay.output("stat", "-c", "%U:%G %a", "/srv/data")
    played = play("relay.yml", "--extra-vars", json.dumps({setting: "/srv/data"}))
    assert not played.succeeded
    assert setting in played.said
    assert relay.output("cat", "/srv/data/backups/db.sql").strip() == "precious"
    assert relay.output("stat", "-c", "%U:%G %a", "/srv/data") == before


@pytest.mark.parametrize("setting", ["relay_tunnel_user", "relay_agent_user", "relay_gateway_user"])
def test_an_account_that_is_somebody_elses_is_refused_and_left_alone(relay: ScenarioRelay, setting: str) -> None:
    before = relay.output("getent", "passwd", "ordinary")
    played = play("relay.yml", "--extra-vars", json.dumps({setting: "ordinary"}))
    assert not played.succeeded
    assert f"Name another in {setting}" in played.said
    assert relay.output("getent", "passwd", "ordinary") == before


def test_an_environment_that_is_somebody_elses_is_refused(relay: ScenarioRelay) -> None:
    relay.run("python3", "-m", "venv", "/srv/others/venv")
    played = play("relay.yml", "--extra-vars", json.dumps({"relay_install_dir": "/srv/others/venv"}))
    assert not played.succeeded
    assert "relay_install_dir /srv/others/venv holds something" in played.said


def test_a_damaged_record_of_the_enrolled_is_named_before_anything_is_changed(relay: ScenarioRelay) -> None:
    record = "/etc/opencode-relay/clients.json"
    kept = relay.output("cat", record)
    relay.run("tee", record, stdin="{")
    try:
        played = play("relay.yml")
        assert not played.succeeded
        assert f"{record} is damaged" in played.said
    finally:
        relay.run("tee", record, stdin=kept)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("relay_sshd_max_startups", "many"),
        ("relay_join_host", "a b"),
        ("relay_firewall_metadata_addresses", ["metadata"]),
    ],
)
def test_a_wrong_value_is_named(setting: str, value: object) -> None:
    tags = "relay_firewall_range,relay_sshd_config"
    played = play("relay.yml", "--check", "--tags", tags, "--extra-vars", json.dumps({setting: value}))
    assert not played.succeeded
    assert setting in played.said


def test_the_join_lines_are_printed_again(relay: ScenarioRelay) -> None:
    played = play("relay.yml", "--tags", "relay_sshd_join")
    assert played.succeeded, played.said
    for client in relay.clients():
        assert f"{client}: opencode-connected enroll --join ocr1:" in played.said
