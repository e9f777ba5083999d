"""What is left of a relay when its roles have removed it: nothing. These tests come last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.hosts.scenario import Attacker, ScenarioRelay


pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("removed")]


def test_nothing_of_it_runs_or_lies_around(relay: ScenarioRelay) -> None:
    assert not relay.succeeds("nft", "list", "table", "inet", "opencode_relay")
    assert relay.run("systemctl", "list-unit-files", "--no-legend", "opencode-relay*", check=False).stdout == ""
    assert not relay.connections()
    for path in ("/etc/opencode-relay", relay.registry_dir, relay.venv, "/run/opencode-relay.sock"):
        assert not relay.succeeds("test", "-e", path), path
    leftovers = relay.output("sh", "-c", "find /etc -name '*opencode*'")
    assert leftovers == ""


def test_its_accounts_are_gone(relay: ScenarioRelay) -> None:
    for user in (relay.tunnel_user, relay.agent_user, relay.gateway_user):
        assert not relay.infra.user(user).exists


def test_clients_are_shut_out_and_ordinary_logins_work(guest: Attacker, ordinary: Attacker) -> None:
    assert "Permission denied" in guest.ssh().stderr
    assert "uid=" in ordinary.ssh(to="id").stdout
