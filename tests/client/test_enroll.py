"""Enrolling at a relay: the machine's own key, and what a join line becomes."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.joining import HOST_KEY, join_line
from opencode_connected import client_key
from opencode_connected import settings as settings_module
from opencode_connected.background import environment
from opencode_connected.commands import enroll as verb
from opencode_connected.configuration import with_settings
from opencode_connected.errors import LauncherError, UsageError
from opencode_connected.line.ssh_errors import diagnose
from support.line.sshd import Sshd

if TYPE_CHECKING:
    from pathlib import Path

    from client.launched import Machine
    from opencode_connected.settings import LauncherSettings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LauncherSettings:
    """Settings of a user whose configuration directory is not there yet, and has a name as on macOS."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "Ann's Application Support"))
    return settings_module.load({})


def modes(settings: LauncherSettings) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in settings.config_file.parent.iterdir()}


def test_the_key_is_made_once_and_is_its_owners_alone(settings: LauncherSettings) -> None:
    first = verb.enroll(settings, name="laptop", check=False)
    private = settings.key_file.read_bytes()
    second = verb.enroll(settings, name="laptop", check=False)

    assert (first.changed, second.changed) == (True, False)
    assert first.public_key == second.public_key
    assert settings.key_file.read_bytes() == private
    assert modes(settings) == {"relay_key": 0o600}
    assert settings.config_file.parent.stat().st_mode & 0o777 == 0o700
    fingerprint = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(settings.key_file)], capture_output=True, text=True, check=True
    ).stdout
    assert fingerprint.startswith("256 ")
    assert fingerprint.endswith("(ED25519)\n")


def test_the_inventory_line_has_the_name_and_the_public_key_and_nothing_of_the_private_one(
    settings: LauncherSettings,
) -> None:
    made = verb.enroll(settings, name="laptop", check=False)

    assert made.inventory == f'- {{name: "laptop", key: "{made.public_key}"}}'
    assert re.fullmatch(r"ssh-ed25519 [A-Za-z0-9+/=]{68}", made.public_key or "")
    private = "".join(settings.key_file.read_text().splitlines()[1:-1])
    assert private[-40:] not in made.model_dump_json()


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("laptop", "laptop"),
        ("Anns-MacBook.local", "Anns-MacBook"),
        ("_x y_", "x-y"),
        ("büro", "b-ro"),
        ("x" * 40, "x" * 32),
        ("", "laptop"),
        ("...", "laptop"),
    ],
)
def test_without_a_name_the_host_name_is_made_fit(
    hostname: str, name: str, settings: LauncherSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: hostname)
    assert verb.enroll(settings, name=None, check=True).name == name


@pytest.mark.parametrize("name", ["", "-x", "_x", "a.b", "a b", "ä", "x" * 33, "a\n"])
def test_a_name_that_no_inventory_can_have_is_refused_before_anything_is_made(
    settings: LauncherSettings, name: str
) -> None:
    with pytest.raises(UsageError, match="1 to 32 letters"):
        verb.enroll(settings, name=name, check=False)
    assert not settings.key_file.exists()


def test_a_file_that_is_no_key_is_kept_and_named(settings: LauncherSettings) -> None:
    settings.key_file.parent.mkdir(parents=True)
    settings.key_file.write_text("mine")
    settings.key_file.chmod(0o600)
    with pytest.raises(LauncherError, match=re.escape(str(settings.key_file))) as caught:
        verb.enroll(settings, name=None, check=False)
    assert str(caught.value).isprintable()
    assert settings.key_file.read_text() == "mine"


def test_a_key_of_another_kind_or_with_a_passphrase_is_kept_and_named(settings: LauncherSettings) -> None:
    settings.key_file.parent.mkdir(parents=True)
    for options in (("-t", "ecdsa", "-N", ""), ("-t", "ed25519", "-N", "secret")):
        settings.key_file.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", *options, "-f", str(settings.key_file)], check=True)
        private = settings.key_file.read_bytes()
        with pytest.raises(LauncherError, match=re.escape(str(settings.key_file))):
            verb.enroll(settings, name=None, check=False)
        assert settings.key_file.read_bytes() == private


def test_a_key_that_another_run_has_just_made_is_kept(settings: LauncherSettings) -> None:
    first = client_key.make_key(settings.key_file)
    private = settings.key_file.read_bytes()
    assert client_key.make_key(settings.key_file) == first
    assert settings.key_file.read_bytes() == private


def test_a_machine_without_ssh_keygen_is_told_what_to_install(
    settings: LauncherSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LauncherError, match="install OpenSSH"):
        verb.enroll(settings, name=None, check=False)
    assert modes(settings) == {}


def test_a_join_without_a_key_says_what_comes_first(settings: LauncherSettings) -> None:
    with pytest.raises(LauncherError, match="run `opencode-connected enroll` first"):
        verb.join(settings, join_line(), proxy_command=None, check=False)
    assert not settings.config_file.parent.exists()


def test_a_join_line_becomes_settings_and_a_pinned_host_key(settings: LauncherSettings) -> None:
    key = verb.enroll(settings, name=None, check=False).public_key
    joined = verb.join(settings, join_line(), proxy_command=None, check=False)

    assert joined.public_key == key
    assert modes(settings) == {"relay_key": 0o600, "relay_known_hosts": 0o600, "config.toml": 0o600}
    assert settings.known_hosts_file.read_text() == f"vm.example.org {HOST_KEY}\n"
    loaded = settings_module.load({})
    assert loaded.relay_ports == tuple(range(10000, 10016))
    assert loaded.is_enrolled
    assert shlex.split(loaded.relay_ssh_cmd or "") == [
        *("ssh", "-i", str(settings.key_file), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
        *("-o", f'UserKnownHostsFile="{settings.known_hosts_file}"', "-o", "GlobalKnownHostsFile=none"),
        *("-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=vm.example.org"),
        *("-p", "2222", "opencode-tunnel@vm.example.org"),
    ]


def test_joining_again_changes_nothing_and_joining_elsewhere_changes_only_that(settings: LauncherSettings) -> None:
    verb.enroll(settings, name=None, check=False)
    settings.config_file.write_text('# mine\ninstance_name = "x"  # yes\n  relay_ports = "2000"')

    assert verb.join(settings, join_line(), proxy_command=None, check=True).changed
    assert settings.config_file.read_text().endswith('"2000"'), "a check writes nothing"
    assert not settings.known_hosts_file.exists()
    assert verb.join(settings, join_line(), proxy_command=None, check=False).changed
    first = settings.config_file.read_text()
    assert not verb.join(settings, join_line(), proxy_command=None, check=False).changed
    assert verb.join(settings, join_line(ports="10016-10031"), proxy_command=None, check=False).changed

    assert first.startswith('# mine\ninstance_name = "x"  # yes\nrelay_ports = "10000-10015"\nrelay_ssh_cmd = "ssh ')
    assert settings.config_file.read_text() == first.replace("10000-10015", "10016-10031")


def test_a_configuration_file_that_is_a_link_stays_one(settings: LauncherSettings, tmp_path: Path) -> None:
    verb.enroll(settings, name=None, check=False)
    dotfile = tmp_path / "dotfiles.toml"
    dotfile.write_text("")
    settings.config_file.symlink_to(dotfile)
    verb.join(settings, join_line(), proxy_command=None, check=False)
    assert settings.config_file.is_symlink()
    assert "relay_ports" in dotfile.read_text()


def test_the_relays_name_for_the_machine_is_kept_for_its_instances_and_its_next_key(
    settings: LauncherSettings,
) -> None:
    verb.enroll(settings, name="other", check=False)
    verb.join(settings, join_line(client="walk"), proxy_command=None, check=False)
    loaded = settings_module.load({})
    assert loaded.relay_client == "walk"
    assert verb.enroll(loaded, name=None, check=False).name == "walk"


def test_a_proxy_command_is_given_time_and_comes_out_of_the_file_as_it_went_in(settings: LauncherSettings) -> None:
    verb.enroll(settings, name=None, check=False)
    proxy = "gcloud compute start-iap-tunnel 'my vm' %p --listen-on-stdin --zone \"z\" \\ ünïcode"
    verb.join(settings, join_line(), proxy_command=proxy, check=False)
    words = shlex.split(settings_module.load({}).relay_ssh_cmd or "")
    assert f"ProxyCommand={proxy}" in words
    assert "ConnectTimeout=30" in words

    verb.join(settings, join_line(), proxy_command=None, check=False)
    assert "ProxyCommand" not in (settings_module.load({}).relay_ssh_cmd or ""), "the command line is the whole truth"


@pytest.mark.parametrize("proxy", ["", " ", "a\nb", "a\x1bb"])
def test_a_proxy_command_that_is_none_is_refused(settings: LauncherSettings, proxy: str) -> None:
    verb.enroll(settings, name=None, check=False)
    with pytest.raises(UsageError, match="--proxy-command"):
        verb.join(settings, join_line(), proxy_command=proxy, check=False)
    assert not settings.config_file.exists()


@pytest.mark.parametrize("name", ["100%", "a$HOME", 'a"b', "a\\b"])
def test_a_path_that_ssh_would_expand_is_refused(settings: LauncherSettings, tmp_path: Path, name: str) -> None:
    odd = replace(settings, config_file=tmp_path / name / "config.toml")
    verb.enroll(odd, name=None, check=False)
    with pytest.raises(UsageError, match="plainer"):
        verb.join(odd, join_line(), proxy_command=None, check=False)
    assert not odd.config_file.exists()


def test_a_setting_in_the_environment_that_beats_the_file_is_pointed_out(settings: LauncherSettings) -> None:
    verb.enroll(settings, name=None, check=False)
    old = replace(settings, environment={"RELAY_SSH_CMD": "gcloud compute ssh vm --", "RELAY_PORTS": "10000-10015"})
    (warning,) = verb.join(old, join_line(), proxy_command=None, check=False).warnings
    assert warning.startswith("RELAY_SSH_CMD in the environment wins")
    assert verb.join(settings, join_line(), proxy_command=None, check=False).warnings == []


def test_a_setting_of_the_service_that_beats_the_file_is_pointed_out(settings: LauncherSettings) -> None:
    verb.enroll(settings, name=None, check=False)
    settings.service_file.parent.mkdir(parents=True, exist_ok=True)
    settings.service_file.write_text(environment.written({"RELAY_SSH_CMD": 'ssh "me"@old', "PATH": "/bin"}))
    (warning,) = verb.join(settings, join_line(), proxy_command=None, check=False).warnings
    assert warning.startswith("RELAY_SSH_CMD of when the service was installed wins")
    assert "`opencode-connected service install`" in warning
    joined = verb.join(settings, join_line(), proxy_command=None, check=True).joined
    assert joined is not None
    settings.service_file.write_text(environment.written({"RELAY_SSH_CMD": joined.relay_ssh_cmd}))
    assert verb.join(settings, join_line(), proxy_command=None, check=False).warnings == []


VALUES = st.text(alphabet=st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=30)
KNOWN = ["relay_ssh_cmd", "relay_ports", "instance_name", "relay_registry_dir"]


@given(st.dictionaries(st.sampled_from(KNOWN), VALUES), st.dictionaries(st.sampled_from(KNOWN), VALUES))
def test_whatever_is_set_reads_back_beside_whatever_was_there(before: dict[str, str], new: dict[str, str]) -> None:
    text = with_settings("# first\n", before)
    changed = with_settings(text, new)
    assert tomllib.loads(changed) == {**before, **new}
    assert changed.startswith("# first\n")


@pytest.mark.parametrize(
    "text", ['"relay_ports" = "2000"\n', 'relay_ports = """\n2000"""\n', 'x = """\nrelay_ports = 1\n"""\n']
)
def test_a_file_that_is_not_understood_is_left_alone_and_the_lines_are_told(text: str) -> None:
    with pytest.raises(UsageError, match='write these settings into it yourself: relay_ports = "10000-10015"'):
        with_settings(text, {"relay_ports": "10000-10015"})


def test_an_enrolled_machine_is_not_told_to_mend_its_users_own_keys() -> None:
    for said in ("Host key verification failed.", "t@vm: Permission denied (publickey)."):
        assert "enroll" in diagnose([said], 255, is_enrolled=True).remedy
        assert "enroll" not in diagnose([said], 255).remedy


def test_what_is_enrolled_gets_through_a_real_sshd_and_nobody_else_is_taken_for_the_relay(
    machine: Machine, tmp_path: Path
) -> None:
    odd = {"XDG_CONFIG_HOME": str(tmp_path / "it's my config")}

    def run(*arguments: str, code: int = 0) -> dict[str, Any]:
        ran = machine.run(*arguments, "--json", env=odd)
        assert ran.returncode == code, ran.stdout + ran.stderr
        result: dict[str, Any] = json.loads(ran.stdout)
        return result

    def hops(code: int) -> dict[str, dict[str, Any]]:
        return {hop["hop"]: hop for hop in run("doctor", code=code)["hops"]}

    with Sshd(tmp_path / "relay") as relay:
        host_key = " ".join((relay.directory / "host_key.pub").read_text().split()[:2])
        there = {"host": relay.address, "port": relay.port, "user": relay.user}
        public_key = run("enroll")["public_key"]
        run("enroll", "--join", join_line(**there, hostKey=host_key, ports="20000-31999"))

        denied = hops(code=1)["authentication"]
        assert denied["status"] == "failed"
        assert "`opencode-connected enroll`" in denied["remedy"]

        relay.authorized_keys.write_text(f"{public_key}\n")
        assert hops(code=0)["account"] == {
            "hop": "account",
            "status": "ok",
            "detail": "an ordinary account",
            "remedy": "",
        }

        run("enroll", "--join", join_line(**there))
        stranger = hops(code=1)["host key"]
        assert stranger["status"] == "failed"
        assert "new join line" in stranger["remedy"]
