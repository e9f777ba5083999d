"""What is not derived goes from one relay to another, whose accounts are others, by one file and two commands."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

from opencode_gateway.store import Store
from opencode_relay.backup import gateway_files
from opencode_relay.backup.tar import pack
from relay.provisioned import ProvisionedRelay, free_range
from relay.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opencode_gateway.store import Store as GatewayStore

USERS = '{"ann": {"password": "$argon2id$…"}}'
WAITS = "a message that waits for a laptop"


def people(store: GatewayStore) -> list[str]:
    with store.transaction(write=False) as db:
        return [row["name"] for row in db.execute("SELECT name FROM machine_tokens ORDER BY name")]


def add_token(store: GatewayStore, name: str) -> None:
    with store.transaction() as db:
        db.execute("INSERT INTO machine_tokens VALUES (?, ?, 'observe', 0, NULL)", (name, name.encode()))


@dataclass
class Machine:
    """A relay with host keys and the gateway's directory of its own."""

    relay: ProvisionedRelay
    ssh: Path
    data: Path
    state: Path

    @classmethod
    def of(cls, relay: ProvisionedRelay, directory: Path) -> Machine:
        ssh = directory / "ssh"
        ssh.mkdir()
        for kind in ("ecdsa", "ed25519"):
            command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(ssh / f"ssh_host_{kind}_key")]
            subprocess.run(command, check=True)
        data, state = relay.etc.parent / "lib" / "gateway", relay.etc.parent / "lib" / "state"
        relay.write_settings(gatewayUser=relay.gateway_user, gatewayDataDir=str(data), stateDir=str(state))
        return cls(relay, ssh, data, state)

    def run(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.relay.run(verb, "--host-keys", str(self.ssh), *arguments)

    def make_gateway(self) -> Store:
        """Have the gateway run: its database is open, and what was written last is in the log beside it."""
        account = pwd.getpwnam(self.relay.gateway_user)
        self.data.mkdir(parents=True, mode=0o700)
        store = Store(self.data / "gateway.sqlite3")
        add_token(store, "nightly")
        (self.data / "users.json").write_text(USERS)
        (self.data / "notify.json").write_text("{}")
        (self.data / "signing.key").write_bytes(bytes(32))
        (self.data / "old-backup.sqlite3").write_bytes(b"x")
        self.state.mkdir(mode=0o700)
        (self.state / "journal.sqlite3").write_text(WAITS)
        for path in (self.data, *self.data.iterdir(), self.state, *self.state.iterdir()):
            os.chown(path, account.pw_uid, account.pw_gid)
        return store

    def host_keys(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.ssh.iterdir()}


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "old").mkdir()
    with ProvisionedRelay(tmp_path / "old", ports=free_range(32)) as relay:
        yield Machine.of(relay, tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path, old: Machine) -> Iterator[Machine]:
    """A fresh host: other accounts, other host keys, nobody enrolled."""
    (tmp_path / "new").mkdir()
    with ProvisionedRelay(tmp_path / "new", ports=old.relay.ports) as relay:
        yield Machine.of(relay, tmp_path / "new")


def mode_and_owner(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def test_a_backup_makes_another_host_the_same_relay(old: Machine, new: Machine, tmp_path: Path) -> None:
    old.relay.enrol("box", "laptop", "desktop")
    old.relay.run("revoke", "box")
    store = old.make_gateway()
    backup = tmp_path / "relay.tar"
    made = old.run("backup", str(backup))
    assert (made.returncode, made.stderr) == (0, "")
    assert "2 clients, 1 revoked keys" in made.stdout
    assert mode_and_owner(backup) == (0o600, 0, 0)
    assert WAITS.encode() not in backup.read_bytes()
    add_token(store, "later")

    put = new.run("restore", str(backup))
    assert put.stderr == ""
    assert put.stdout.splitlines()[-1] == "changed"
    assert "run the playbook relay.yml" in put.stdout
    assert new.host_keys() == old.host_keys()
    assert new.relay.ports_of("laptop") == old.relay.ports_of("laptop")
    agent, gateway = pwd.getpwnam(new.relay.agent_user), pwd.getpwnam(new.relay.gateway_user)
    assert mode_and_owner(new.relay.etc / "clients.json") == (0o640, 0, agent.pw_gid)
    assert {mode_and_owner(path)[1:] for path in new.data.iterdir()} == {(gateway.pw_uid, gateway.pw_gid)}
    kept = ["gateway.sqlite3", "notify.json", "signing.key", "users.json"]
    assert sorted(path.name for path in new.data.iterdir()) == kept
    assert {mode_and_owner(path)[0] for path in new.data.iterdir()} == {0o600}
    restored = Store(new.data / "gateway.sqlite3")
    assert people(restored) == ["nightly"]
    # The new gateway is used, and somebody else joins: a run of the playbook with the same file changes none of it.
    add_token(restored, "newer")
    again = new.run("restore", str(backup))
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "nothing to change")
    assert people(restored) == ["newer", "nightly"]
    restored.close()
    store.close()

    shutil.copy(old.relay.key("laptop"), new.relay.directory / "key-laptop")
    with RawClient(new.relay, "laptop") as laptop:
        assert laptop.first["ports"] == list(old.relay.ports_of("laptop"))
    wanted = {"clients": [{"name": "box", "key": old.relay.public_key("box")}]}
    refused = new.relay.run("apply", stdin=json.dumps(wanted))
    assert "was revoked" in refused.stderr


def test_a_relay_in_use_is_replaced_only_where_that_is_said(old: Machine, new: Machine, tmp_path: Path) -> None:
    backup = str(tmp_path / "relay.tar")
    old.relay.enrol("laptop")
    old.make_gateway().close()
    old.run("backup", backup)
    new.relay.enrol("other")
    live = new.make_gateway()
    add_token(live, "live")
    state = (new.relay.etc / "clients.json").read_bytes()
    keys = new.host_keys()
    refused = new.run("restore", backup)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "1 clients are enrolled on this relay (other, …), and nothing was changed" in refused.stderr
    assert (state, keys) == ((new.relay.etc / "clients.json").read_bytes(), new.host_keys())
    new.relay.enrol()
    refused = new.run("restore", backup)
    assert "the gateway of this relay has data" in refused.stderr
    new.relay.enrol("other")
    with RawClient(new.relay, "other") as other:
        assert other.first["type"] == "ready"
        assert new.run("restore", backup, "--replace").stdout.splitlines()[-1] == "changed"
        other.wait()
    assert people(live) == ["nightly"]
    live.close()
    assert new.run("restore", backup, "--replace").stdout.splitlines()[-1] == "nothing to change"


def test_a_restore_that_broke_off_is_run_again(old: Machine, new: Machine, tmp_path: Path) -> None:
    backup = str(tmp_path / "relay.tar")
    old.relay.enrol("laptop")
    old.make_gateway().close()
    old.run("backup", backup)
    state = new.relay.etc / "clients.json"
    state.mkdir()  # nothing takes its place
    failed = new.run("restore", backup, "--replace")
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    state.rmdir()
    assert new.run("restore", backup).stdout.splitlines()[-1] == "changed"
    assert new.relay.ports_of("laptop") == old.relay.ports_of("laptop")


def test_one_that_broke_off_does_not_go_on_over_who_was_enrolled_since(
    old: Machine, new: Machine, tmp_path: Path
) -> None:
    backup = str(tmp_path / "relay.tar")
    old.relay.enrol("laptop")
    old.run("backup", backup)
    state = new.relay.etc / "clients.json"
    state.mkdir()
    assert new.run("restore", backup, "--replace").returncode == 1
    state.rmdir()
    new.relay.enrol("other")
    assert "(other, …), and nothing was changed" in new.run("restore", backup).stderr


def test_a_key_that_was_revoked_since_stays_out(old: Machine, tmp_path: Path) -> None:
    backup = str(tmp_path / "relay.tar")
    old.relay.enrol("laptop", "stolen")
    old.run("backup", backup)
    assert old.relay.run("revoke", "stolen").returncode == 0
    restored = old.run("restore", backup, "--replace").stdout
    assert "left out, as their keys were revoked here since: stolen" in restored
    assert old.relay.run("clients").stdout.count("laptop") == 1
    assert old.relay.public_key("stolen").split()[1] not in (old.relay.etc / "authorized_keys").read_text()
    wanted = {"clients": [{"name": "stolen", "key": old.relay.public_key("stolen")}]}
    assert "was revoked" in old.relay.run("apply", stdin=json.dumps(wanted)).stderr


@pytest.mark.parametrize("damage", [b"no database", b"", b"torn"])
def test_a_damaged_database_of_the_gateway_is_replaced(old: Machine, tmp_path: Path, damage: bytes) -> None:
    backup = str(tmp_path / "relay.tar")
    old.relay.enrol("laptop")
    old.make_gateway().close()
    old.run("backup", backup)
    database = old.data / "gateway.sqlite3"
    whole = database.read_bytes()
    database.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096) if damage == b"torn" else damage)
    restored = old.run("restore", backup, "--replace")
    assert restored.returncode == 0, restored.stderr
    store = Store(database)
    assert people(store) == ["nightly"]
    store.close()


def test_files_without_end_are_not_read_into_memory(tmp_path: Path) -> None:
    with (tmp_path / "users.json").open("wb") as file:
        file.truncate(50 * 1024**3)
    with pytest.raises(OSError, match="larger than 64 MB"):
        gateway_files.read(tmp_path)


def test_the_gateways_account_gets_nothing_of_roots_terminal() -> None:
    with tempfile.TemporaryDirectory() as name:
        program = Path(name) / "python"
        program.write_text("#!/bin/sh\nif (: </dev/tty) 2>/dev/null; then echo a terminal; else echo none; fi\n")
        for path in (program, program.parent):
            path.chmod(0o755)
        script = (
            f"import sys, types, pathlib; sys.executable = {str(program)!r};"
            "from opencode_relay.backup.host import Host;"
            "settings = types.SimpleNamespace(gateway_data_dir=pathlib.Path('/'));"
            "print('it has', Host(None, settings, None)._as_gateway('read', 65534, 65534).decode())"
        )
        terminal = pexpect.spawn(sys.executable, ["-c", script], encoding="utf-8", timeout=120)
        assert terminal.expect(["it has none", "it has a terminal"]) == 0
        terminal.close()


def test_a_damaged_record_is_replaced_by_a_backup(old: Machine, tmp_path: Path) -> None:
    backup = str(tmp_path / "relay.tar")
    old.relay.enrol("laptop")
    old.run("backup", backup)
    (old.relay.etc / "clients.json").write_text("{")
    assert "restore FILE --replace" in old.relay.run("clients").stderr
    assert "is damaged" in old.run("backup", str(tmp_path / "other.tar")).stderr
    assert old.run("restore", backup, "--replace").returncode == 0
    with RawClient(old.relay, "laptop") as laptop:
        assert laptop.first["type"] == "ready"


def test_ports_that_would_move_are_refused_before_anything_changes(old: Machine, tmp_path: Path) -> None:
    backup = str(tmp_path / "relay.tar")
    old.relay.enrol("laptop")
    old.run("backup", backup)
    old.relay.enrol()
    old.relay.write_settings(blockSize=2)
    keys = old.host_keys()
    refused = old.run("restore", backup)
    assert "the ports of 1 enrolled clients would move" in refused.stderr
    assert old.host_keys() == keys


def test_what_is_there_already_is_not_overwritten_and_the_backup_goes_into_pipes(
    old: Machine, tmp_path: Path
) -> None:
    there = tmp_path / "there.tar"
    assert "nobody was enrolled here yet" in old.run("backup", str(there)).stderr
    old.relay.enrol("laptop")
    there.write_text("mine")
    link = tmp_path / "link.tar"
    link.symlink_to(tmp_path / "elsewhere")
    for target in (there, link):
        refused = old.run("backup", str(target))
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "is there already: name a new file" in refused.stderr
    assert there.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.tar", "old", "there.tar"]
    piped = subprocess.run(old.relay.command("backup", "-"), capture_output=True, check=True, cwd="/")
    (tmp_path / "piped.tar").write_bytes(piped.stdout)
    checked = old.run("restore", "--check", str(tmp_path / "piped.tar"))
    assert "relay/clients.json" in checked.stdout
    assert "root:agent" in checked.stdout


def test_links_that_the_gateways_account_made_lead_root_nowhere(old: Machine, tmp_path: Path) -> None:
    old.relay.enrol("laptop")
    old.make_gateway().close()
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    (old.data / "users.json").unlink()
    (old.data / "users.json").symlink_to(secret)
    refused = old.run("backup", str(tmp_path / "relay.tar"))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "users.json" in refused.stderr
    assert not (tmp_path / "relay.tar").exists()


def test_a_hostile_tar_and_a_file_that_is_none_change_nothing(old: Machine, tmp_path: Path) -> None:
    old.relay.enrol("laptop")
    backup = tmp_path / "relay.tar"
    old.run("backup", str(backup))
    hostile = tmp_path / "hostile.tar"
    with tarfile.open(backup) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        hostile.write_bytes(pack({"/etc/cron.d/x": manifest.read()}))
    os.mkfifo(tmp_path / "pipe.tar")
    state = (old.relay.etc / "clients.json").read_bytes()
    for file, why in ((hostile, "leads elsewhere"), (tmp_path / "pipe.tar", "it is no regular file")):
        for command in (("backup", "--check"), ("restore", "--check"), ("restore", "--replace")):
            ran = old.run(*command, str(file))
            assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
            assert why in ran.stderr
    assert (old.relay.etc / "clients.json").read_bytes() == state


def test_host_keys_with_which_sshd_would_not_start_are_refused(old: Machine, tmp_path: Path) -> None:
    old.relay.enrol("laptop")
    keys = old.host_keys()
    another = keys["ssh_host_ed25519_key.pub"]
    for name, content in (("ssh_host_ecdsa_key", b"damaged"), ("ssh_host_ecdsa_key.pub", another)):
        (old.ssh / name).write_bytes(content)
        backup = str(tmp_path / f"{name}.tar")
        old.run("backup", backup)
        (old.ssh / name).write_bytes(keys[name])
        refused = old.run("restore", "--replace", backup)
        assert "the host key ssh_host_ecdsa_key of the backup is damaged, or no pair" in refused.stderr
        assert old.host_keys() == keys
