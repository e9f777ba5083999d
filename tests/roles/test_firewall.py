"""The rules of tunnels and gateway, as the roles write them, in a real kernel: who reaches a gateway that runs."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from support.hosts.role_parts import RoleParts
from support.line.netns import TwoHosts
from support.project.role_readmes import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(180),
]

PORT, NEXT_PORT = 8790, 8791
GATEWAY, PROXY, STRANGER = "games", "www-data", "nobody"
"""Accounts that every Debian has."""
_SERVER = """
import socket, sys
servers = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:]]
print(flush=True)
sys.stdin.read()
"""
_CLIENT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
except TimeoutError:
    print("no answer")
except ConnectionRefusedError:
    print("refused")
else:
    print("reached")
"""
# As relays had them whose gateway's rules were among those of the tunnels: loaded from a file of the role, by number.
_BEFORE = """
table inet opencode_relay {
    chain gateway {
        type filter hook output priority filter; policy accept;
        oifname "lo" tcp dport 8790 tcp flags syn / fin,syn,rst,ack meta skuid != { 0, 5, 33 } reject with tcp reset
        oifname "lo" tcp sport 8790 tcp flags syn,ack / fin,syn,rst,ack meta skuid != 5 drop
    }
}
"""
_HANDLERS = [
    {
        "name": "Reload the rules",
        "ansible.builtin.command": "nft --file {{ __relay_config_dir }}/firewall.nft",
    },
    {
        "name": "Reload the gateway's rules",
        "ansible.builtin.command": "nft --file {{ __relay_config_dir }}/gateway.nft",
    },
]
FIREWALL = ("relay_firewall", "file")
GATEWAYS = ("relay_gateway", "rules")
BEFORE = ("relay_gateway", "before")


class Firewall:
    """A relay in a namespace whose rules parts of the roles write, and what stands there of the roles' files."""

    def __init__(self, hosts: TwoHosts, directory: Path) -> None:
        self.hosts = hosts
        self.etc = directory / "etc"
        self.etc.mkdir()
        roles = ("relay_common", "relay_firewall", "relay_gateway")
        self._parts = RoleParts(directory, *roles, handlers=_HANDLERS, prefix=hosts.relay)

    def play(self, *parts: tuple[str, str], **variables: object) -> str:
        """Run parts of roles there, each with what it notifies; return what was said, with the recap."""
        values = {
            "__relay_config_dir": str(self.etc),
            "relay_tunnel_user": "daemon",
            "relay_agent_user": "bin",
            "relay_gateway_user": GATEWAY,
            "relay_gateway_proxy_users": [PROXY],
            "relay_gateway_port": PORT,
            **variables,
        }
        return self._parts.play(*parts, **values)

    def nft(self, *arguments: str, rules: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run nft there."""
        command = [*self.hosts.relay, "nft", *arguments]
        return subprocess.run(command, input=rules, capture_output=True, text=True, check=False)

    def connect(self, user: str, port: int = PORT) -> str:
        """Return what comes of a user's connection there: `reached`, `refused` or `no answer`."""
        return _connect(*self.hosts.relay, "runuser", "-u", user, "--", address="127.0.0.1", port=port)

    def connect_from_outside(self, port: int) -> str:
        """Return what comes of a connection from another host."""
        return _connect(*self.hosts.laptop, address=self.hosts.relay_address, port=port)

    @contextmanager
    def serving(self, *ports: int, user: str = GATEWAY) -> Iterator[None]:
        """Have somebody listen on ports of loopback."""
        command = [*self.hosts.relay, "runuser", "-u", user, "--", "/usr/bin/python3", "-c", _SERVER]
        with subprocess.Popen(
            [*command, *map(str, ports)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        ) as server:
            assert server.stdout is not None
            server.stdout.readline()
            yield
            server.communicate()


def _connect(*where: str, address: str, port: int) -> str:
    command = [*where, "/usr/bin/python3", "-c", _CLIENT, address, str(port)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", check=True).stdout.strip()


@pytest.fixture
def firewall(tmp_path: Path) -> Iterator[Firewall]:
    with TwoHosts() as hosts:
        yield Firewall(hosts, tmp_path)


def test_an_upgrade_that_ends_between_the_roles_leaves_the_gateway_behind_its_old_rules(firewall: Firewall) -> None:
    firewall.play(FIREWALL)
    assert firewall.nft("--file", "-", rules=_BEFORE).returncode == 0
    (firewall.etc / "firewall.d").mkdir()
    # Rules of another host, as of a copied directory, which are in force nowhere here.
    (firewall.etc / "firewall.d" / "gateway.nft").write_text(_BEFORE.replace("5, 33", "65534"))
    with firewall.serving(PORT):
        assert (firewall.connect(STRANGER), firewall.connect(PROXY)) == ("refused", "reached")
        firewall.play(FIREWALL)
        assert (firewall.connect(STRANGER), firewall.connect(PROXY)) == ("refused", "reached")
        # A boot.
        firewall.nft("flush", "ruleset")
        assert firewall.nft("--file", str(firewall.etc / "firewall.nft")).returncode == 0
        assert (firewall.connect(STRANGER), firewall.connect(PROXY)) == ("refused", "reached")
        firewall.play(GATEWAYS, BEFORE)
        assert (firewall.connect(STRANGER), firewall.connect(PROXY)) == ("refused", "reached")
    assert firewall.nft("list", "chain", "inet", "opencode_relay", "gateway").returncode != 0
    assert not (firewall.etc / "firewall.d").exists()
    # The next run has nothing to change.
    assert "changed=0" in firewall.play(FIREWALL, GATEWAYS, BEFORE)


def test_a_port_that_changes_is_guarded_until_the_gateway_has_served_on_the_next_one(firewall: Firewall) -> None:
    firewall.play(GATEWAYS)
    with firewall.serving(PORT, NEXT_PORT):
        assert firewall.connect(STRANGER, NEXT_PORT) == "reached"
        for _ in range(2):  # a run that ended before the restart, and another one
            firewall.play(GATEWAYS, relay_gateway_port=NEXT_PORT)
            for port in (PORT, NEXT_PORT):
                assert (firewall.connect(STRANGER, port), firewall.connect(PROXY, port)) == ("refused", "reached")
        firewall.play(GATEWAYS, relay_gateway_port=NEXT_PORT, __relay_gateway_keeps_guarded=False)
        assert (firewall.connect(STRANGER), firewall.connect(STRANGER, NEXT_PORT)) == ("reached", "refused")


def test_what_comes_from_outside_reaches_no_gateway_even_where_the_host_routes_loopback_addresses(
    firewall: Firewall,
) -> None:
    chain = "chain in { type nat hook prerouting priority dstnat; tcp dport 9999 dnat to 127.0.0.1:8790; }"
    assert firewall.nft(f"table ip route {{ {chain}; }}").returncode == 0
    subprocess.run([*firewall.hosts.relay, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"], check=True)
    with firewall.serving(PORT):
        assert firewall.connect_from_outside(9999) == "reached"
        firewall.play(GATEWAYS)
        assert firewall.connect_from_outside(9999) == "no answer"
        assert firewall.connect(PROXY) == "reached"


@pytest.mark.parametrize("change", ["flush ruleset", "delete rule inet opencode_gateway output handle {handle}"])
def test_rules_that_were_dropped_or_changed_in_the_kernel_are_told_from_those_of_the_file(
    firewall: Firewall, change: str
) -> None:
    asking = yaml.safe_load((PROJECT / "roles/relay_common/vars/main.yml").read_text())["__relay_in_force"]

    def in_force() -> bool:
        command = [*firewall.hosts.relay, *asking, "opencode_gateway", firewall.etc / "gateway.nft"]
        return subprocess.run(command, check=False).returncode == 0

    firewall.play(GATEWAYS)
    assert in_force()
    listed = firewall.nft("--handle", "list", "chain", "inet", "opencode_gateway", "output").stdout
    handle = listed.rpartition("# handle ")[2].split()[0]
    assert firewall.nft(*change.format(handle=handle).split()).returncode == 0
    assert not in_force()
