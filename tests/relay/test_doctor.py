"""What `opencode-relay doctor` says of a relay that is whole, and of each part that is not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opencode_relay.doctor import firewall, inside, machine, ssh, web
from opencode_relay.doctor.examination import examine
from opencode_relay.doctor.finding import Finding, is_sound, ok, to_json, to_text
from opencode_relay.doctor.relay import Gateway, Relay
from opencode_relay.errors import ConfigError
from opencode_relay.settings import load_settings
from relay.raw_client import RawClient
from support.fake_firewalls import fake_firewalld, fake_ufw
from support.public_gateway import PublicGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.provisioned import ProvisionedRelay
    from support.fake_health import FakeHealth

SITE = Gateway("https://relay.example.org", "127.0.0.1:8790", has_site=True)


def looked_at(relay: ProvisionedRelay, gateway: Gateway | None = None) -> Relay:
    return Relay(
        relay.etc,
        load_settings(relay.etc),
        gateway,
        sshd=("/usr/sbin/sshd", "-f", str(relay.sshd.directory / "sshd_config")),
        host_key=relay.sshd.directory / "host_key",
    )


def one(findings: list[Finding], check: str) -> Finding:
    found = [finding for finding in findings if finding.check == check]
    assert len(found) == 1, findings
    return found[0]


# ---- the whole


def test_the_command_says_a_line_a_part_and_leaves_out_a_gateway_that_is_not_there(relay: ProvisionedRelay) -> None:
    ran = relay.run("doctor")
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert all(line.startswith(("ok    ", "FAULT ", "note  ")) for line in lines)
    assert ran.returncode == int("FAULT" in ran.stdout)
    assert "ok    agent: it answers" in lines
    assert "ok    clients: 2 are enrolled, 0 keys are revoked" in lines
    told = json.loads(relay.run("doctor", "--json").stdout)
    checks = [finding["check"] for finding in told["findings"]]
    assert {"agent", "tunnels", "clients", "disk", "clock"} <= set(checks)
    assert not {"dns", "https", "certificate", "gateway", "port 80"} & set(checks)
    refused = relay.run("doctor", user=relay.tunnel_user)
    assert (refused.returncode, refused.stderr) == (
        1,
        "opencode-relay: only root can do this: sudo opencode-relay …\n",
    )


def test_a_check_that_hangs_or_breaks_keeps_nothing_else_from_being_said(relay: ProvisionedRelay) -> None:
    never = threading.Event()

    def hangs(_: Relay) -> list[Finding]:
        never.wait()
        return []

    def breaks(_: Relay) -> list[Finding]:
        raise ValueError("of all things")

    checks = {"hung": hangs, "broken": breaks, "well": lambda _: [ok("well", "it is")]}
    found = examine(looked_at(relay), checks, within=1.0)
    never.set()
    assert [(finding.check, finding.state) for finding in found] == [
        ("hung", "fault"),
        ("broken", "fault"),
        ("well", "ok"),
    ]
    assert "not answered within 1 s" in found[0].text
    assert "ValueError: of all things" in found[1].text
    assert not is_sound(found)
    assert to_text(found).count("\n") == 2
    assert json.loads(to_json(found[2:])) == {
        "ok": True,
        "findings": [{"check": "well", "state": "ok", "text": "it is", "remedy": ""}],
    }


# ---- agent, tunnels, record


def test_an_agent_that_answers_is_told_from_one_that_hangs_and_one_that_is_gone(own_relay: ProvisionedRelay) -> None:
    there = looked_at(own_relay)
    assert inside.check_agent(there)[0].state == "ok"
    assert not own_relay.logged("refused a connection")
    own_relay.stop_agent()
    try:
        hung = inside.check_agent(there)[0]
    finally:
        own_relay.start_agent()
    assert (hung.state, "does not answer" in hung.text) == ("fault", True)
    assert "systemctl restart opencode-relay-agent" in hung.remedy
    nowhere = there.settings.model_copy(update={"socket": Path("/run/nowhere.sock")})
    gone = inside.check_agent(replace(there, settings=nowhere))[0]
    assert (gone.state, "is not reached (no such file or directory)" in gone.text) == ("fault", True)


def test_tunnels_are_counted_and_whatever_else_listens_in_their_range_is_named(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    there = looked_at(relay)
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as laptop:
        assert laptop.first["type"] == "ready"
        assert inside.check_tunnels(there)[0].text.startswith("1 of ")
        with socket.create_server(("127.0.0.1", port + 1)):
            foreign = inside.check_tunnels(there)[0]
    assert (foreign.state, f"127.0.0.1 port {port + 1} of user 0" in foreign.text) == ("fault", True)


def test_a_tunnel_beyond_loopback_is_named(relay: ProvisionedRelay) -> None:
    port = relay.ports_of("laptop")[0]
    code = f"import socket; s = socket.create_server(('0.0.0.0', {port})); print(flush=True); input()"
    command = ["runuser", "-u", relay.tunnel_user, "--", "python3", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as exposed:
        assert exposed.stdout is not None
        exposed.stdout.readline()
        found = inside.check_tunnels(looked_at(relay))[0]
        exposed.communicate(b"\n")
    assert (found.state, f"0.0.0.0 port {port} listens beyond loopback" in found.text) == ("fault", True)


def test_a_damaged_record_is_named(own_relay: ProvisionedRelay) -> None:
    record = own_relay.etc / "clients.json"
    written = record.read_bytes()
    record.write_text("{")
    try:
        found = inside.check_record(looked_at(own_relay))[0]
    finally:
        record.write_bytes(written)
    assert found.state == "fault"
    assert "is damaged" in found.text
    assert "restore FILE --replace" in found.remedy


# ---- sshd


def test_what_laptops_log_in_to_is_as_it_must_be(relay: ProvisionedRelay) -> None:
    found = ssh.check(looked_at(relay))
    assert [(finding.check, finding.state) for finding in found] == [
        ("ssh", "ok"),
        ("sshd's settings", "ok"),
        ("host key", "ok"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("GatewayPorts no", "GatewayPorts yes", "gatewayports is yes"),
        ("AllowTcpForwarding remote", "AllowTcpForwarding yes", "allowtcpforwarding is yes"),
        ("PermitTTY no", "PermitTTY yes", "permittty is yes"),
        ("AuthorizedKeysFile ", "AuthorizedKeysFile /etc/elsewhere ", "authorizedkeysfile is /etc/elsewhere"),
    ],
)
def test_a_wall_of_sshd_that_is_down_is_named(
    relay: ProvisionedRelay, tmp_path: Path, before: str, after: str, what: str
) -> None:
    config = (relay.sshd.directory / "sshd_config").read_text()
    assert before in config
    (tmp_path / "sshd_config").write_text(config.replace(before, after, 1))
    there = replace(looked_at(relay), sshd=("/usr/sbin/sshd", "-f", str(tmp_path / "sshd_config")))
    found = one(ssh.check(there), "sshd's settings")
    assert (found.state, what in found.text) == ("fault", True)


def test_an_sshd_that_is_not_there_or_refuses_its_configuration_is_named(
    relay: ProvisionedRelay, tmp_path: Path
) -> None:
    (tmp_path / "sshd_config").write_text("Nonsense yes\n")
    there = replace(looked_at(relay), sshd=("/usr/sbin/sshd", "-f", str(tmp_path / "sshd_config")))
    assert ssh.check(there)[0].text == "sshd refuses its configuration"
    config = (relay.sshd.directory / "sshd_config").read_text()
    (tmp_path / "sshd_config").write_text(config.replace(f"Port {relay.sshd.port}", "Port 1"))
    assert one(ssh.check(there), "ssh").text == "nothing listens on port 1"


def test_host_keys_that_sshd_has_not_read_yet_or_that_are_no_pair_are_named(
    relay: ProvisionedRelay, tmp_path: Path
) -> None:
    key = tmp_path / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    there = replace(looked_at(relay), host_key=key)
    stale = one(ssh.check(there), "host key")
    assert (stale.state, "sshd does not prove itself with" in stale.text) == ("fault", True)
    assert "systemctl restart ssh" in stale.remedy
    shutil.copy(relay.sshd.directory / "host_key.pub", tmp_path / "host_key.pub")
    assert "are no pair" in one(ssh.check(there), "host key").text
    key.chmod(0o644)
    assert "is open to others" in one(ssh.check(there), "host key").text
    key.unlink()
    assert "No such file" in one(ssh.check(there), "host key").text


# ---- firewalls


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose programs come before the machine's own."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return directory


@pytest.mark.parametrize(
    ("rules", "shut"),
    [
        ((), "port 22, 80, 443"),
        (("22/tcp                     ALLOW IN    Anywhere",), "port 80, 443"),
        (("22                         LIMIT IN    Anywhere", "80,443/tcp                 ALLOW IN    Anywhere"), ""),
        (("OpenSSH                    ALLOW IN    Anywhere", "WWW Full                   ALLOW IN    Anywhere"), ""),
        (
            ("20:90/tcp                  ALLOW IN    Anywhere", "443/udp                    ALLOW IN    Anywhere"),
            "port 443",
        ),
        (
            ("22/tcp                     ALLOW IN    10.0.0.0/8", "80,443/tcp                 ALLOW IN    Anywhere"),
            "port 22",
        ),
        (
            ("443                        DENY IN     Anywhere", "Anywhere                   ALLOW IN    Anywhere"),
            "port 443",
        ),
        (("Postfix                    ALLOW IN    Anywhere",), "port 22, 80, 443"),
    ],
)
def test_an_ufw_that_shuts_ports_is_named_with_the_command_that_opens_them(
    relay: ProvisionedRelay, programs: Path, rules: tuple[str, ...], shut: str
) -> None:
    fake_ufw(programs, *rules)
    found = [*firewall._ufw([22, 80, 443])]
    assert [finding.state for finding in found] == ["fault" if shut else "ok"]
    assert found[0].text == (
        f"ufw is active and shuts {shut}" if shut else "ufw is active and lets port 22, 80, 443 through"
    )
    assert ("sudo ufw allow 443/tcp" in found[0].remedy) == ("443" in shut)
    fake_ufw(programs, *rules, default="allow")
    assert one(firewall.check(looked_at(relay, SITE)), "firewall").state == "ok"


def test_a_firewalld_that_shuts_ports_is_named_with_the_command_that_opens_them(
    relay: ProvisionedRelay, programs: Path
) -> None:
    port = relay.sshd.port
    fake_firewalld(programs, f"--query-port={port}/tcp", "--query-service=http")
    found = one(firewall.check(looked_at(relay, SITE)), "firewall")
    assert (found.state, found.text) == ("fault", "firewalld is running and shuts port 443")
    assert "--add-port=443/tcp" in found.remedy
    assert firewall.check(looked_at(relay))[0].text == f"firewalld is running and lets port {port} through"


def test_rules_of_the_tunnels_that_were_dropped_are_named(own_relay: ProvisionedRelay) -> None:
    assert firewall.check(looked_at(own_relay))[0].text == "neither ufw nor firewalld is on"
    rules = own_relay.etc / "firewall.nft"
    rules.touch()
    try:
        found = one(firewall.check(looked_at(own_relay)), "tunnels' firewall")
    finally:
        rules.unlink()
    assert (found.state, "are not in force" in found.text) == ("fault", True)


# ---- disk and clock


def test_a_full_disk_is_named_and_so_is_one_without_room_for_files(tmp_path: Path) -> None:
    assert machine.disk(["/nonexistent", "/dev/shm"])[0].check == "disk"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=50", "tmpfs", str(tmp_path)], check=True)
    try:
        assert machine.disk([tmp_path])[0].state == "ok"
        for number in range(48):
            (tmp_path / str(number)).touch()
        assert "has no room for more files" in machine.disk([tmp_path])[0].text
        for number in range(1, 48):
            (tmp_path / str(number)).unlink()
        (tmp_path / "0").write_bytes(bytes(1024 * 1000))
        full = machine.disk([tmp_path, tmp_path])
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert [finding.state for finding in full] == ["fault"]
    assert f"{tmp_path} has 0 MB left of 1" in full[0].text


def test_a_clock_that_nothing_keeps_right_and_one_that_is_off_are_named(relay: ProvisionedRelay) -> None:
    assert machine.check_clock(looked_at(relay))[0].check == "clock"
    assert machine.clock(0, 1500).text == "it is kept right, 1.5 ms off"
    assert machine.clock(0x2000, 1_500_000).text == "it is kept right, 1.5 ms off"
    assert "timedatectl set-ntp true" in machine.clock(0x40, 0).remedy
    assert machine.clock(0, -2_000_000).text == "it is 2.0 s off"


# ---- the way of a phone


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublicGateway]:
    registry = tmp_path_factory.mktemp("registry")
    with PublicGateway(tmp_path_factory.mktemp("gateway"), registry) as gateway:
        yield gateway


def front(public: PublicGateway, **changes: object) -> Gateway:
    authority = public.caddy._authority
    gateway = Gateway(public.front_url, f"127.0.0.1:{public.port}", has_site=False, authority=authority)
    return replace(gateway, **changes)  # type: ignore[arg-type] # a test's own words


def test_a_gateway_that_answers_through_its_front_is_well(relay: ProvisionedRelay, public: PublicGateway) -> None:
    there = looked_at(relay, front(public))
    found = [*web.check(there), *web.check_gateway(there)]
    assert [(finding.check, finding.state) for finding in found] == [
        ("dns", "note"),
        ("certificate", "ok"),
        ("https", "ok"),
        ("gateway", "ok"),
    ]
    assert "what phones are told is not seen from here" in found[0].text


def test_a_certificate_of_an_authority_that_nobody_knows_is_named(
    relay: ProvisionedRelay, public: PublicGateway
) -> None:
    found = web.check(looked_at(relay, front(public, authority=None)))
    assert one(found, "certificate").state == "fault"
    assert "it is not trusted: " in one(found, "certificate").text


def test_a_front_without_a_certificate_for_the_name_is_named(relay: ProvisionedRelay, public: PublicGateway) -> None:
    # Caddy has none for the address, and ends the handshake.
    other = public.front_url.replace("localhost", "127.0.0.1")
    found = one(web.check(looked_at(relay, front(public, public_url=other))), "certificate")
    assert (found.state, "there is none for 127.0.0.1" in found.text) == ("fault", True)


def test_a_front_that_serves_something_else_is_named(relay: ProvisionedRelay, public: PublicGateway) -> None:
    public.stop()
    try:
        there = looked_at(relay, front(public))
        found = web.check(there)
        behind = web.check_gateway(there)[0]
    finally:
        public.start()
    assert one(found, "https").state == "fault"
    assert "it answers 502" in one(found, "https").text
    assert "journalctl -u opencode-gateway" in one(found, "https").remedy
    assert (behind.state, "(connection refused)" in behind.text) == ("fault", True)


def test_ports_that_are_shut_and_a_name_that_leads_nowhere_are_named(relay: ProvisionedRelay) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nothing listens there
        gateway = replace(SITE, public_url=f"https://localhost:{taken.getsockname()[1]}", has_site=False)
        found = one(web.check(looked_at(relay, gateway)), "https")
    assert (found.state, "(connection refused)" in found.text) == ("fault", True)
    nowhere = replace(SITE, public_url="https://relay.invalid")
    assert [finding.text for finding in web.check(looked_at(relay, nowhere))] == ["relay.invalid has no address"]
    assert web.check(looked_at(relay, replace(SITE, public_url="http://127.0.0.1:8790"))) == []


HERE = web.Seen(certificate=b"ours")


@pytest.mark.parametrize(
    ("there", "state", "text"),
    [
        (HERE, "ok", "relay.example.org leads to 198.51.100.7, which reaches this relay"),
        (web.Seen(certificate=b"theirs"), "fault", "where another machine answers"),
        (web.Seen("no answer", "closed"), "fault", "where nothing is reached from here (no answer)"),
    ],
)
def test_an_address_that_is_none_of_the_hosts_is_this_relays_if_it_answers_so(
    there: web.Seen, state: str, text: str
) -> None:
    found = web.where_it_leads(SITE, {"198.51.100.7": there}, HERE)
    assert (found.state, text in found.text) == (state, True)


def test_a_certificate_that_was_not_renewed_is_named_whatever_its_whole_life() -> None:
    now = time.time()
    for life, left, state in (
        (90, 60, "ok"),
        (90, 14, "fault"),
        (0.5, 0.2, "ok"),
        (0.5, 0.05, "fault"),
        (90, -1, "fault"),
    ):
        begins, ends = now - (life - left) * 86400, now + left * 86400
        assert web.how_long_it_lasts(web.Seen(begins=begins, ends=ends), is_own=False).state == state


def test_what_there_is_to_look_at_is_read_from_what_the_roles_write(tmp_path: Path) -> None:
    settings, site = tmp_path / "gateway.json", tmp_path / "gateway.caddy"
    assert Gateway.read(settings, site) is None
    settings.write_text('{"public_url": "https://relay.example.org", "listen": "127.0.0.1:8791", "audit": {}}')
    gateway = Gateway.read(settings, site)
    assert gateway == Gateway("https://relay.example.org", "127.0.0.1:8791", has_site=False)
    assert gateway is not None
    assert (gateway.host, gateway.port) == ("relay.example.org", 443)
    site.write_text("relay.example.org {\n\ttls internal\n}\n")
    gateway = Gateway.read(settings, site)
    assert gateway is not None
    assert (gateway.has_site, gateway.authority is not None) == (True, True)
    settings.write_text("[]")
    with pytest.raises(ConfigError, match="is damaged: run the playbook"):
        Gateway.read(settings, site)
