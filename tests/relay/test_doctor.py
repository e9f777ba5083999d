"""What `opencode-relay doctor` says of a relay that is whole, and of each part that is not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opencode_common.finding import Finding, is_sound, ok, to_json, to_text
from opencode_relay.doctor import firewall, inside, machine, ssh
from opencode_relay.doctor.examination import examine
from opencode_relay.doctor.relay import ExaminedGateway, ExaminedRelay
from relay.examined import looked_at, one
from relay.raw_client import RawClient
from support.hosts.fake_firewalls import fake_firewalld, fake_ufw

if TYPE_CHECKING:
    from relay.provisioned import ProvisionedRelay
    from support.opencodes.fake_health import FakeHealth

SITE = ExaminedGateway("https://relay.example.org", "127.0.0.1:8790", has_site=True)


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

    def hangs(_: ExaminedRelay) -> list[Finding]:
        never.wait()
        return []

    def breaks(_: ExaminedRelay) -> list[Finding]:
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


def test_the_directory_of_the_journal_is_the_gateways_alone_or_it_is_said(
    relay: ProvisionedRelay, tmp_path: Path
) -> None:
    there = looked_at(relay)
    assert inside.check_state(there)[0].state == "note"
    state = tmp_path / "state"
    settings = there.settings.model_copy(
        update={"state_dir": state, "gateway_user": relay.gateway_user, "journal_days": 30}
    )
    there = replace(there, settings=settings)

    def said() -> tuple[str, str]:
        finding = one(inside.check_state(there), "journal")
        return finding.state, finding.text.removeprefix(str(state))

    assert said() == ("fault", ": No such file or directory, so that the server keeps nothing over its end")
    state.mkdir(mode=0o700)
    assert said() == (
        "fault",
        f" does not belong to {relay.gateway_user}, so that the server keeps nothing over its end",
    )
    shutil.chown(state, relay.gateway_user)
    assert said() == ("ok", f" is {relay.gateway_user}'s alone, and keeps 30 days")
    state.chmod(0o750)
    assert said() == ("fault", " has mode 0750, and what was said lies there")
    state.rmdir()
    state.symlink_to(tmp_path)
    assert said() == ("fault", " is no directory, so that the server keeps nothing over its end")


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
        (("22/tcp (OpenSSH)           ALLOW IN    Anywhere", "80,443/tcp (WWW Full)      ALLOW IN    Anywhere"), ""),
        (("22/tcp (OpenSSH (v6))      ALLOW IN    Anywhere (v6)",), "port 80, 443"),
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
        (("25/tcp (Postfix)           ALLOW IN    Anywhere",), "port 22, 80, 443"),
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


_LOOK = """
import sys
from pathlib import Path
from opencode_relay.doctor import firewall
from opencode_common.finding import to_json
from opencode_relay.doctor.relay import ExaminedGateway, ExaminedRelay
gateway = ExaminedGateway("https://relay.example.org", "127.0.0.1:8790", has_site=True)
print(to_json(list(firewall._own(ExaminedRelay(Path(sys.argv[1]), None, gateway)))))
"""
_RULES = """
table inet opencode_gateway
delete table inet opencode_gateway
table inet opencode_gateway {
    chain output {
        type filter hook output priority filter; policy accept;
        tcp dport { 8790, 2019 } tcp flags syn / fin,syn,rst,ack meta skuid != { root, "daemon", "bin" } drop
    }
}
"""


@pytest.mark.parametrize(
    ("change", "said", "remedy"),
    [
        ("true", "its rules are in force", ""),
        ("nft delete table inet opencode_gateway", "are not in force", "reload-or-restart opencode-gateway-firewall"),
        ("nft flush chain inet opencode_gateway output", "somebody has changed it", "opencode-gateway-firewall"),
        ('sed -i s/daemon/nobody-at-all/ "$1/gateway.nft"', "cannot be loaded any more", "make that anew"),
        ('rm "$1/gateway.nft"', "gateway.nft is missing", "Run the playbook relay.yml"),
    ],
)
def test_rules_of_the_gateway_that_are_missing_or_changed_are_named(
    tmp_path: Path, change: str, said: str, remedy: str
) -> None:
    (tmp_path / "gateway.nft").write_text(_RULES)
    script = f'nft --file "$1/gateway.nft" && {{ {change} || true; }} && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--net", "sh", "-c", script, "sh", str(tmp_path), sys.executable, _LOOK]
    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    (found,) = told["findings"]
    assert (found["check"], found["state"]) == ("gateway's firewall", "fault" if remedy else "ok")
    assert said in found["text"]
    assert remedy in found["remedy"]


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
