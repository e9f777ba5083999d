"""The gateway on the relay: what its container may do, who reaches it, and what Caddy serves in front of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from support.hosts.chain import CONNECT, CONTAINER
from support.hosts.scenario import play
from support.waiting import eventually

if TYPE_CHECKING:
    from support.hosts.chain import ScenarioGateway
    from support.hosts.scenario import Machine, ScenarioRelay

_TABLES = """
import sqlite3, sys
print([row[0] for row in sqlite3.connect(sys.argv[1]).execute("SELECT name FROM sqlite_master")])
"""
_ASK = """
import json, ssl, sys, urllib.error, urllib.request
trust = ssl.create_default_context(cadata=sys.stdin.read())
request = urllib.request.Request(sys.argv[1], method=sys.argv[2])
try:
    answer = urllib.request.urlopen(request, timeout=20, context=trust)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, dict(answer.headers), answer.read().decode()]))
"""


@pytest.fixture(scope="module")
def container(gateway: ScenarioGateway) -> dict[str, Any]:
    """What the engine says of its container."""
    return gateway.inspect()


def test_the_container_may_do_nothing_that_it_does_not_need(container: dict[str, Any]) -> None:
    host = container["HostConfig"]
    assert host["NetworkMode"] == "host"
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["Memory"] == host["MemorySwap"] == 400 * 1024 * 1024
    assert host["PidsLimit"] == 256
    assert "noexec" in host["Tmpfs"]["/tmp"]


def test_it_can_write_to_its_data_and_the_journal_alone_and_has_no_socket_of_the_engine(
    relay: ScenarioRelay, gateway: ScenarioGateway, container: dict[str, Any]
) -> None:
    mounts = {mount["Destination"]: (mount["Source"], mount["RW"]) for mount in container["Mounts"]}
    assert mounts == {
        "/etc/opencode-gateway": ("/etc/opencode-gateway", False),
        "/var/lib/opencode-relay": (relay.registry_dir, False),
        "/var/lib/opencode-gateway": (gateway.data_dir, True),
        "/var/lib/opencode-relay-state": (relay.state_dir, True),
    }


def test_the_server_in_it_shares_the_journal_of_those_that_are_started_over_ssh(relay: ScenarioRelay) -> None:
    servers = json.loads(relay.output("cat", "/etc/opencode-gateway/servers.json"))["mcpServers"]
    environment = servers["opencode"]["env"]
    assert (environment["RELAY_STATE_DIR"], environment["RELAY_JOURNAL_DAYS"]) == (
        "/var/lib/opencode-relay-state",
        "30",
    )
    relay.run("docker", "exec", CONTAINER, "touch", "/var/lib/opencode-relay-state/probe")
    try:
        probe = relay.infra.file(f"{relay.state_dir}/probe")
        assert (probe.user, probe.group) == (relay.gateway_user, relay.gateway_user)
    finally:
        relay.run("rm", f"{relay.state_dir}/probe")


def test_its_process_is_of_the_gateways_account_and_can_gain_nothing(
    relay: ScenarioRelay, container: dict[str, Any]
) -> None:
    status = relay.output("cat", f"/proc/{container['State']['Pid']}/status").splitlines()
    fields = {key: value.split() for key, _, value in (line.partition(":") for line in status)}
    account = relay.infra.user(relay.gateway_user)
    assert set(fields["Uid"]) == {str(account.uid)}
    assert set(fields["Gid"]) == {str(account.gid)}
    assert fields["NoNewPrivs"] == ["1"]
    for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[kind][0], 16) == 0


def test_it_listens_on_loopback_and_caddy_on_the_webs_ports(relay: ScenarioRelay, gateway: ScenarioGateway) -> None:
    listeners = relay.output("ss", "-Hltnp").splitlines()
    at_port = [line.split()[3] for line in listeners if line.split()[3].endswith(f":{gateway.port}")]
    assert at_port == [f"127.0.0.1:{gateway.port}"]
    assert {line.split()[3].rpartition(":")[2] for line in listeners if '"caddy"' in line} == {"80", "443", "2019"}


def test_only_those_in_front_may_connect_to_it(relay: ScenarioRelay, gateway: ScenarioGateway) -> None:
    for user in ("root", "caddy", "www-data", relay.gateway_user):
        assert relay.python(CONNECT, str(gateway.port), user=user).returncode == 0, user
    for user in ("ordinary", "nobody", relay.tunnel_user, relay.agent_user):
        assert "Connection refused" in relay.python(CONNECT, str(gateway.port), user=user).stderr, user


@pytest.mark.timeout(600)
def test_rules_that_name_an_account_that_is_not_here_keep_the_gateway_down_and_nothing_else(
    relay: ScenarioRelay, gateway: ScenarioGateway
) -> None:
    file, unit = "/etc/opencode-relay/gateway.nft", "opencode-gateway-firewall.service"
    rules = relay.output("cat", file)
    relay.run("tee", file, stdin=rules.replace('"caddy"', '"somebody-else"'))
    try:
        assert not relay.succeeds("systemctl", "restart", unit)
        assert not relay.succeeds("systemctl", "start", "opencode-gateway.service")
        assert "somebody-else" in relay.output("journalctl", "--unit", unit, "--lines", "20", "--output", "cat")
        assert relay.succeeds("nft", "list", "table", "inet", "opencode_relay")
        assert relay.succeeds("systemctl", "is-active", "opencode-relay-agent.service", "ssh.socket", "caddy.service")
    finally:
        relay.run("tee", file, stdin=f"{rules}\n")
        relay.run("systemctl", "restart", unit)
        relay.run("systemctl", "start", "opencode-gateway.service")
        gateway.wait_until_it_serves()


def test_caddys_own_settings_are_roots_and_caddys(relay: ScenarioRelay) -> None:
    assert relay.python(CONNECT, "2019", user="caddy").returncode == 0
    for user in ("ordinary", relay.gateway_user):
        assert "Connection refused" in relay.python(CONNECT, "2019", user=user).stderr, user


def test_caddy_takes_its_share_of_the_memory_and_is_back_when_it_was_killed(relay: ScenarioRelay) -> None:
    def shown(name: str) -> str:
        return relay.output("systemctl", "show", "--value", f"--property={name}", "caddy.service")

    assert int(shown("MemoryMax")) == 256 * 1024 * 1024
    pid = shown("MainPID")
    assert relay.output("cat", f"/proc/{pid}/oom_score_adj") == "500"

    relay.run("kill", "-KILL", pid)

    eventually(lambda: shown("MainPID") not in {pid, "0"} and relay.listens(443), "Caddy is back", within=30)


@pytest.mark.parametrize(
    ("path", "owner", "mode"),
    [
        ("/etc/opencode-gateway", "root:{gateway}", 0o750),
        ("/etc/opencode-gateway/gateway.json", "root:{gateway}", 0o640),
        ("/etc/opencode-gateway/servers.json", "root:{gateway}", 0o640),
        ("{data}", "{gateway}:{gateway}", 0o700),
        ("{data}/gateway.sqlite3", "{gateway}:{gateway}", 0o600),
        ("/usr/local/sbin/opencode-gateway", "root:root", 0o755),
        ("/etc/caddy/opencode-relay", "root:caddy", 0o750),
    ],
)
def test_owner_and_mode_of(relay: ScenarioRelay, gateway: ScenarioGateway, path: str, owner: str, mode: int) -> None:
    names = {"gateway": relay.gateway_user, "data": gateway.data_dir}
    file = relay.infra.file(path.format(**names))
    assert (f"{file.user}:{file.group}", file.mode) == (owner.format(**names), mode)


@pytest.mark.parametrize("unit", ["opencode-gateway.service", "caddy.service", "docker.service"])
def test_the_unit_runs_and_will_after_a_boot(relay: ScenarioRelay, unit: str) -> None:
    service = relay.infra.service(unit)
    assert service.is_running
    assert service.is_enabled


def test_its_command_line_is_roots_and_speaks_to_the_running_gateway(relay: ScenarioRelay) -> None:
    assert relay.output("opencode-gateway", "health") == "ok"
    refused = relay.run("/usr/local/sbin/opencode-gateway", "health", user="ordinary", check=False)
    assert refused.returncode == 1
    assert "sudo" in refused.stderr


def test_a_backup_is_made_by_the_command_line_and_is_the_gateways_alone(
    relay: ScenarioRelay, gateway: ScenarioGateway
) -> None:
    gateway.administer("backup", "/var/lib/opencode-gateway/copy.sqlite3")
    copy = relay.infra.file(f"{gateway.data_dir}/copy.sqlite3")
    assert (copy.user, copy.mode) == (relay.gateway_user, 0o600)
    assert "clients" in relay.python(_TABLES, str(copy.path)).stdout


@pytest.mark.timeout(600)
def test_settings_that_it_cannot_use_are_refused_while_it_goes_on(
    relay: ScenarioRelay, gateway: ScenarioGateway
) -> None:
    before = gateway.inspect()["Id"]
    servers = json.dumps({"relay_gateway_servers": {"notes": {"command": "notes-mcp"}}})

    played = play("relay.yml", "--tags", "relay_gateway_settings", "--extra-vars", servers)

    assert not played.succeeded
    assert "notes.command: notes-mcp is not found" in played.said
    assert gateway.inspect()["Id"] == before
    assert "notes" not in relay.output("cat", "/etc/opencode-gateway/servers.json")
    assert relay.output("ls", "-A", "/etc/opencode-gateway").split() == ["gateway.json", "servers.json"]


@pytest.mark.timeout(1200)
def test_settings_whose_run_broke_off_before_the_restart_are_in_use_after_the_next_one(
    relay: ScenarioRelay, gateway: ScenarioGateway
) -> None:
    before, tags = gateway.inspect()["Id"], "relay_gateway_settings,relay_gateway_service"
    # The settings are written by then, and the handlers have not run.
    broken = {"relay_gateway_audit_messages": True, "__relay_gateway_command": "/proc/no-file-can-be-here"}

    played = play("relay.yml", "--tags", tags, "--extra-vars", json.dumps(broken))

    assert not played.succeeded
    assert json.loads(relay.output("cat", "/etc/opencode-gateway/gateway.json"))["audit"] == {"messages": True}
    assert gateway.inspect()["Id"] == before

    after = play("relay.yml", "--tags", tags, "--extra-vars", "{relay_gateway_audit_messages: true}")

    assert after.succeeded, after.said
    assert gateway.inspect()["Id"] != before
    usual = play("relay.yml", "--tags", tags)
    assert usual.succeeded, usual.said


def test_a_client_host_reaches_it_by_https_and_is_told_where_to_log_in(
    gateway: ScenarioGateway, desktop: Machine
) -> None:
    root = gateway.root_certificate()

    def ask(path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
        url = f"https://{gateway.domain}{path}"
        status, headers, body = json.loads(desktop.host.run("python3", "-c", _ASK, url, method, stdin=root).stdout)
        return status, {name.lower(): value for name, value in headers.items()}, body

    status, headers, _ = ask("/mcp", "POST")
    assert status == 401
    assert f"https://{gateway.domain}/" in headers["www-authenticate"]
    status, _, body = ask("/.well-known/oauth-authorization-server")
    assert (status, json.loads(body)["issuer"].rstrip("/")) == (200, f"https://{gateway.domain}")
    # The health of what is behind it is nobody's business out there.
    assert ask("/healthz")[0] == 421
