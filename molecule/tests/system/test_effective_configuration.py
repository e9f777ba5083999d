"""What sshd makes of its configuration, and what stands in the files: behaviour alone hides a missing layer."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.hosts.scenario import Machine, ScenarioRelay

TUNNEL = {
    "allowagentforwarding": "no",
    "allowstreamlocalforwarding": "no",
    "allowtcpforwarding": "remote",
    "authenticationmethods": "publickey",
    "authorizedkeyscommand": "none",
    "authorizedkeysfile": "/etc/opencode-relay/authorized_keys",
    "authorizedprincipalscommand": "none",
    "authorizedprincipalsfile": "none",
    "chrootdirectory": "none",
    "clientalivecountmax": "2",
    "clientaliveinterval": "5",
    "disableforwarding": "no",
    "forcecommand": "none",
    "gatewayports": "no",
    "hostbasedauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "maxsessions": "1",
    "passwordauthentication": "no",
    "permitlisten": "127.0.0.1:*",
    "permitopen": "none",
    "permittty": "no",
    "permittunnel": "no",
    "permituserrc": "no",
    "pubkeyauthentication": "yes",
    "trustedusercakeys": "none",
    "unusedconnectiontimeout": "10",
    "x11forwarding": "no",
}
OTHERS = {
    "allowagentforwarding": "yes",
    "allowtcpforwarding": "yes",
    "authorizedkeysfile": ".ssh/authorized_keys .ssh/authorized_keys2",
    "gatewayports": "yes",
    "maxsessions": "10",
    "passwordauthentication": "yes",
    "permitlisten": "any",
    "permitopen": "any",
    "permittty": "yes",
    "permittunnel": "yes",
    "x11forwarding": "yes",
}


def _effective(relay: ScenarioRelay, user: str) -> dict[str, str]:
    asked = f"user={user},host=laptop.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport={relay.ssh_port}"
    lines = relay.output("/usr/sbin/sshd", "-T", "-C", asked).splitlines()
    return {keyword: value for keyword, _, value in (line.partition(" ") for line in lines)}


@pytest.mark.parametrize("setting", sorted(TUNNEL))
def test_sshd_holds_the_tunnels_account_to(relay: ScenarioRelay, setting: str) -> None:
    assert _effective(relay, relay.tunnel_user)[setting] == TUNNEL[setting]


@pytest.mark.parametrize("user", ["ordinary", "root"])
def test_sshd_leaves_other_accounts_what_they_had(relay: ScenarioRelay, user: str) -> None:
    effective = _effective(relay, user)
    assert {setting: effective[setting] for setting in OTHERS} == OTHERS


def test_sshd_takes_a_fleet_behind_one_address(relay: ScenarioRelay) -> None:
    effective = _effective(relay, "ordinary")
    assert effective["maxstartups"] == "211:31:433"
    assert effective["persourcemaxstartups"] == "199"
    if "persourcepenalties" in effective:  # OpenSSH 9.8 and later
        penalties = effective["persourcepenalties"].split()
        assert {"crash:7", "authfail:1", "noauth:1", "min:9", "max:11"} <= set(penalties)


def test_a_clients_line_permits_its_block_and_one_command(relay: ScenarioRelay, machines: list[Machine]) -> None:
    lines = relay.output("cat", "/etc/opencode-relay/authorized_keys").splitlines()
    keys = [line for line in lines if not line.startswith("#")]
    assert len(keys) == len(relay.clients())
    for client in (*(machine.client for machine in machines), "guest"):
        entry = relay.clients()[client]
        line = next(line for line in keys if line.endswith(f" {entry['key']} {client}"))
        ports = ",".join(f'permitlisten="127.0.0.1:{port}"' for port in relay.block(client))
        fingerprint = r"SHA256:[A-Za-z0-9+/]{43}"
        python = f"{re.escape(relay.venv)}/bin/python"
        program = rf"exec {python} -ISE \S+/session\.py {client} {fingerprint} /run/opencode-relay\.sock"
        options = rf'restrict,port-forwarding,permitopen="nowhere\.invalid:1",{re.escape(ports)},command="{program}"'
        assert re.fullmatch(rf"{options} {re.escape(entry['key'])} {client}", line)


def test_blocks_do_not_overlap_and_lie_in_the_range(relay: ScenarioRelay) -> None:
    first, last = map(int, relay.port_range.split("-"))
    ports = [port for client in relay.clients() for port in relay.block(client)]
    assert len(ports) == len(set(ports))
    assert set(ports) <= set(range(first, last + 1))


@pytest.mark.parametrize(
    ("path", "owner", "group", "mode"),
    [
        ("/etc/opencode-relay", "root", "root", 0o755),
        ("/etc/opencode-relay/relay.json", "root", "root", 0o644),
        ("/etc/opencode-relay/clients.json", "root", "{agent}", 0o640),
        ("/etc/opencode-relay/authorized_keys", "root", "{tunnel}", 0o640),
        ("{registry}", "{agent}", "{gateway}", 0o2750),
        ("{registry}/..", "root", "root", 0o755),
        ("{state}", "{gateway}", "{gateway}", 0o700),
        ("/run/opencode-relay.sock", "root", "{tunnel}", 0o660),
    ],
)
def test_owner_and_mode_of(relay: ScenarioRelay, path: str, owner: str, group: str, mode: int) -> None:
    names = {
        "agent": relay.agent_user,
        "tunnel": relay.tunnel_user,
        "gateway": relay.gateway_user,
        "registry": relay.registry_dir,
        "state": relay.state_dir,
    }
    file = relay.infra.file(path.format(**names))
    assert (file.user, file.group, file.mode) == (owner.format(**names), group.format(**names), mode)


def test_the_server_is_told_where_its_journal_lies_and_no_other_account_writes_there(relay: ScenarioRelay) -> None:
    told = json.loads(relay.output("cat", "/etc/opencode-relay/relay.json", user=relay.gateway_user))
    assert (told["stateDir"], told["journalDays"]) == (relay.state_dir, 30)
    assert relay.succeeds("test", "-w", relay.state_dir, user=relay.gateway_user)
    for user in (relay.tunnel_user, relay.agent_user, "ordinary"):
        assert not relay.succeeds("test", "-w", relay.state_dir, user=user), user
        assert not relay.succeeds("ls", relay.state_dir, user=user), user


@pytest.mark.usefixtures("fleet")
def test_a_registration_is_readable_by_the_gateway_and_writable_by_the_agent_alone(relay: ScenarioRelay) -> None:
    name = next(iter(relay.registrations()))
    file = relay.infra.file(f"{relay.registry_dir}/{name}.json")
    assert (file.user, file.group, file.mode) == (relay.agent_user, relay.gateway_user, 0o640)
    assert relay.succeeds("cat", file.path, user=relay.gateway_user)
    assert not relay.succeeds("touch", f"{relay.registry_dir}/x.json", user=relay.gateway_user)
    for user in (relay.tunnel_user, "ordinary", "nobody"):
        assert not relay.succeeds("ls", relay.registry_dir, user=user)
        assert not relay.succeeds("touch", f"{relay.registry_dir}/x.json", user=user)


def test_the_accounts_have_no_password_no_other_group_and_no_shell_they_do_not_need(relay: ScenarioRelay) -> None:
    for user in (relay.tunnel_user, relay.agent_user, relay.gateway_user):
        account = relay.infra.user(user)
        assert account.password == "*"
        assert account.groups == [user]
        assert account.uid < 1000
    assert relay.infra.user(relay.agent_user).shell == "/usr/sbin/nologin"
    assert relay.infra.user(relay.gateway_user).shell == "/usr/sbin/nologin"


@pytest.mark.parametrize(
    "unit", ["opencode-relay-agent.service", "opencode-relay-agent.socket", "opencode-relay-firewall.service"]
)
def test_the_unit_runs_and_will_after_a_boot(relay: ScenarioRelay, unit: str) -> None:
    service = relay.infra.service(unit)
    assert service.is_running
    assert service.is_enabled


def test_the_agent_may_signal_processes_and_do_nothing_else_that_root_may(relay: ScenarioRelay) -> None:
    status = relay.output("cat", f"/proc/{relay.agent_pid()}/status")
    capabilities = dict(re.findall(r"(Cap\w+):\s+(\w+)", status))
    cap_kill = 1 << 5
    for kind in ("CapPrm", "CapEff", "CapBnd"):
        assert int(capabilities[kind], 16) == cap_kill
    assert "NoNewPrivs:\t1" in status
