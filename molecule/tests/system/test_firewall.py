"""Who may open connections to the tunnels on the relay, and what the gateway's user may not reach."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from support.hosts.hosts import RunningProgram
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.hosts.scenario import ScenarioRelay, SeenRegistration

_STATUS = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=10).status)
"""
METADATA = ("169.254.169.254", "100.100.100.200", "fd00:ec2::254")


def _status(relay: ScenarioRelay, user: str, url: str) -> str:
    done = relay.python(_STATUS, url, user=user)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.fixture
def url(fleet: dict[str, SeenRegistration]) -> str:
    """Where an OpenCode answers through a tunnel."""
    return f"http://127.0.0.1:{next(iter(fleet.values())).port}/global/health"


def test_the_gateways_user_the_agent_and_root_reach_a_tunnel(relay: ScenarioRelay, url: str) -> None:
    for user in (relay.gateway_user, relay.agent_user, "root"):
        assert _status(relay, user, url) == "200", user


def test_no_other_local_user_reaches_a_tunnel(relay: ScenarioRelay, url: str) -> None:
    for user in ("ordinary", "nobody", relay.tunnel_user):
        for address in ("127.0.0.1", "127.0.0.2", "localhost"):
            assert "Connection refused" in _status(relay, user, url.replace("127.0.0.1", address)), user


def test_other_ports_of_loopback_are_nobodys_business(relay: ScenarioRelay) -> None:
    program = 'import socket, sys; print(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10).recv(7))'
    assert relay.python(program, str(relay.ssh_port), user="ordinary").stdout.strip() == "b'SSH-2.0'"


@pytest.fixture(params=METADATA)
def metadata_address(relay: ScenarioRelay, request: pytest.FixtureRequest) -> Iterator[str]:
    """An address where clouds hand out credentials."""
    address = str(request.param)
    prefix = 128 if ":" in address else 32
    relay.run("ip", "address", "add", f"{address}/{prefix}", "dev", "lo")
    # A new IPv6 address cannot be bound while it is checked for duplicates.
    eventually(lambda: "tentative" not in relay.output("ip", "address", "show", "dev", "lo"), "the address is usable")
    yield address
    relay.run("ip", "address", "delete", f"{address}/{prefix}", "dev", "lo")


@contextmanager
def _serving(relay: ScenarioRelay, address: str, port: int) -> Iterator[str]:
    with RunningProgram(
        relay, "python3", "-um", "http.server", "--bind", address, str(port), "--directory", "/run"
    ) as server:
        server.wait_for(lambda line: "Serving" in line, "the service")
        yield f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


def test_the_gateways_user_does_not_reach_metadata_and_others_do(relay: ScenarioRelay, metadata_address: str) -> None:
    with _serving(relay, metadata_address, 8080) as url:
        assert _status(relay, "ordinary", url) == "200"
        assert "200" not in _status(relay, relay.gateway_user, url)


def test_the_gateways_user_reaches_a_resolver_at_such_an_address(relay: ScenarioRelay, metadata_address: str) -> None:
    with _serving(relay, metadata_address, 53) as url:
        assert _status(relay, relay.gateway_user, url) == "200"


def test_what_listens_on_a_port_of_the_range_without_being_the_tunnel_is_not_heard(relay: ScenarioRelay) -> None:
    port = int(relay.port_range.partition("-")[2])
    with RunningProgram(
        relay, "python3", "-um", "http.server", "--bind", "127.0.0.1", str(port), user="ordinary"
    ) as server:
        server.wait_for(lambda line: "Serving" in line, "the squatter")
        program = _STATUS.replace("timeout=10", "timeout=2")
        done = relay.python(program, f"http://127.0.0.1:{port}/", user=relay.gateway_user)
        assert "timed out" in done.stderr


def test_what_comes_from_outside_is_dropped_even_where_the_host_routes_loopback_addresses(
    relay: ScenarioRelay,
) -> None:
    # The kernel drops it before, unless somebody sets route_localnet: so the rule's text is all there is to see.
    chain = relay.output("nft", "list", "chain", "inet", "opencode_relay", "input")
    assert f'iifname != "lo" tcp dport {relay.port_range} drop' in chain
