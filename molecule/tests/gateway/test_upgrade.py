"""A relay whose gateway's rules were among those of the tunnels becomes one of today, in a run that breaks off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.hosts.chain import CONNECT
from support.hosts.scenario import play

if TYPE_CHECKING:
    from support.hosts.chain import ScenarioGateway
    from support.hosts.scenario import ScenarioRelay

pytestmark = pytest.mark.timeout(600)

_BEFORE = """
table inet opencode_relay {{
    chain gateway {{
        type filter hook output priority filter; policy accept;
        tcp dport {port} tcp flags syn / syn,ack meta skuid != {{ 0, "caddy", "{user}" }} reject with tcp reset
        tcp sport {port} tcp flags syn,ack / fin,syn,rst,ack meta skuid != "{user}" drop
    }}
}}
"""


def test_an_upgrade_that_ends_between_the_roles_leaves_no_gateway_without_rules(
    relay: ScenarioRelay, gateway: ScenarioGateway
) -> None:
    def guarded() -> bool:
        refused = relay.python(CONNECT, str(gateway.port), user="ordinary").stderr
        assert relay.python(CONNECT, str(gateway.port), user="caddy").returncode == 0
        return "Connection refused" in refused

    def kept() -> bool:
        return relay.succeeds("nft", "list", "chain", "inet", "opencode_relay", "gateway")

    relay.run("nft", "--file", "-", stdin=_BEFORE.format(port=gateway.port, user=relay.gateway_user))
    relay.run("nft", "delete", "table", "inet", "opencode_gateway")
    assert guarded()
    between = play("relay.yml", "--tags", "relay_firewall")
    assert between.succeeded, between.said
    assert guarded()
    assert kept()
    after = play("relay.yml", "--tags", "relay_firewall,relay_gateway_firewall")
    assert after.succeeded, after.said
    assert guarded()
    assert not kept()
    assert not relay.succeeds("grep", "rules of before", "/etc/opencode-relay/firewall.nft")


def test_rules_that_somebody_has_changed_are_put_back_by_the_next_run(
    relay: ScenarioRelay, gateway: ScenarioGateway
) -> None:
    relay.run("nft", "flush", "chain", "inet", "opencode_gateway", "output")
    assert relay.python(CONNECT, str(gateway.port), user="ordinary").returncode == 0
    found = relay.run("opencode-relay", "doctor", check=False).stdout
    assert "FAULT gateway's firewall" in found
    played = play("relay.yml", "--tags", "relay_gateway_firewall")
    assert played.succeeded, played.said
    assert "Connection refused" in relay.python(CONNECT, str(gateway.port), user="ordinary").stderr
