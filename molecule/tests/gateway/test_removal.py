"""What is left of a gateway when its role has removed it: what people would miss, or nothing. This comes last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.hosts.scenario import play

if TYPE_CHECKING:
    from support.hosts.chain import ScenarioGateway
    from support.hosts.scenario import ScenarioRelay

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("removed")]


def test_nothing_of_it_runs_or_lies_around(relay: ScenarioRelay, gateway: ScenarioGateway) -> None:
    for what in ("ps", "images", "volume ls"):
        kind = ("docker", *what.split(), *(() if what == "volume ls" else ("--all",)), "--quiet")
        assert relay.output(*kind) == "", what
    assert not relay.listens(gateway.port)
    for table in ("opencode_relay", "opencode_gateway"):
        assert not relay.succeeds("nft", "list", "table", "inet", table), table
    assert relay.output("find", "/etc", "/usr/local", "/var/lib", "/srv", "-xdev", "-name", "*opencode*") == ""


def test_the_web_server_is_as_its_package_brought_it(relay: ScenarioRelay) -> None:
    assert not relay.listens(443)
    assert relay.run("dpkg", "--verify", "caddy", check=False).stdout == ""
    assert relay.output("ls", "/etc/caddy") == "Caddyfile"


def test_people_clients_and_tokens_are_roots_alone(relay: ScenarioRelay, gateway: ScenarioGateway) -> None:
    directory = relay.infra.file(gateway.data_dir)
    assert (directory.user, directory.mode) == ("root", 0o700)
    assert {"users.json", "gateway.sqlite3"} <= set(relay.output("ls", gateway.data_dir).split())


def test_the_journal_is_roots_alone(relay: ScenarioRelay) -> None:
    directory = relay.infra.file(relay.state_dir)
    assert (directory.user, directory.group, directory.mode) == ("root", "root", 0o700)


def test_what_stays_is_said_with_what_removes_it(
    removed: str, relay: ScenarioRelay, gateway: ScenarioGateway
) -> None:
    end = removed[removed.rindex("TASK [") :]
    assert gateway.data_dir in end
    assert relay.state_dir in end
    assert "-e relay_gateway_purge=true" in end
    assert "docker.io, caddy, nftables" in end
    assert "~/.config/opencode-relay" in end


def test_a_purge_takes_them_too(relay: ScenarioRelay, gateway: ScenarioGateway) -> None:
    tags = "relay_gateway,relay_registry"
    played = play("remove.yml", "--tags", tags, "--extra-vars", "relay_gateway_purge=true")
    assert played.succeeded, played.said
    for directory in (gateway.data_dir, relay.state_dir):
        assert not relay.succeeds("test", "-e", directory), directory
