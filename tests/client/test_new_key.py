"""A key in the place of another: one that was revoked, that is damaged, or that is in use."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from opencode_connected import settings as settings_module
from opencode_connected.commands import enroll as verb
from opencode_connected.errors import LauncherError

if TYPE_CHECKING:
    from client.launched import Machine
    from opencode_connected.settings import LauncherSettings

SAMPLE = Path(__file__).parents[2] / "playbooks" / "inventory" / "unmanaged.yml"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LauncherSettings:
    """Settings of a user who has no configuration directory yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return settings_module.load({})


def new_key(settings: LauncherSettings, *, check: bool = False) -> verb.EnrollResult:
    return verb.enroll(settings, name="laptop", check=check, new_key=True)


def old_of(settings: LauncherSettings) -> Path:
    return settings.key_file.with_name("relay_key.old")


def files(settings: LauncherSettings) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in settings.key_file.parent.iterdir()}


def test_a_new_key_takes_the_place_of_the_one_before_which_is_kept(settings: LauncherSettings) -> None:
    first = verb.enroll(settings, name="laptop", check=False)
    private = settings.key_file.read_bytes()

    second = new_key(settings)

    assert second.changed
    assert second.public_key != first.public_key
    assert second.inventory == f'- {{name: "laptop", key: "{second.public_key}"}}'
    assert verb.enroll(settings, name="laptop", check=False).public_key == second.public_key
    assert second.old_key_file == str(old_of(settings))
    assert old_of(settings).read_bytes() == private
    assert {path.stat().st_mode & 0o777 for path in settings.key_file.parent.iterdir()} == {0o600}
    assert set(files(settings)) == {"relay_key", "relay_key.old"}, "nothing else is left behind"

    assert new_key(settings).public_key not in (first.public_key, second.public_key)
    assert old_of(settings).read_bytes() != private, "only the last one is kept"


def test_a_new_key_where_there_is_none_is_the_first_one(settings: LauncherSettings) -> None:
    assert new_key(settings).old_key_file is None
    assert set(files(settings)) == {"relay_key"}


def test_a_check_replaces_nothing_and_tells_what_would_happen(settings: LauncherSettings) -> None:
    assert new_key(settings, check=True).changed
    assert not settings.key_file.parent.exists()
    verb.enroll(settings, name=None, check=False)
    before = files(settings)
    checked = new_key(settings, check=True)
    assert (checked.changed, checked.public_key) == (True, None)
    assert "relay_key.old" in str(checked.as_text()[0])
    assert files(settings) == before


@pytest.mark.parametrize("damage", ["text", "empty", "ecdsa", "locked", "link", "broken link"])
def test_a_key_that_cannot_be_used_names_the_command_that_replaces_it(
    settings: LauncherSettings, damage: str, tmp_path: Path
) -> None:
    settings.key_file.parent.mkdir(parents=True)
    options = {"ecdsa": ("-t", "ecdsa", "-N", ""), "locked": ("-t", "ed25519", "-N", "secret")}
    if damage in options:
        subprocess.run(["ssh-keygen", "-q", *options[damage], "-f", str(settings.key_file)], check=True)
    elif "link" in damage:
        settings.key_file.symlink_to(tmp_path / "elsewhere")
        if damage == "link":
            (tmp_path / "elsewhere").write_text("x")
            (tmp_path / "elsewhere").chmod(0o600)
    else:
        settings.key_file.write_bytes(b"" if damage == "empty" else b"\xffnot a key")
        settings.key_file.chmod(0o600)
    if damage != "broken link":
        with pytest.raises(LauncherError, match="`opencode-connected enroll --new-key`"):
            verb.enroll(settings, name=None, check=False)

    made = new_key(settings)

    assert verb.enroll(settings, name=None, check=False).public_key == made.public_key
    assert not settings.key_file.is_symlink()
    assert settings.key_file.stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_may_read_is_to_be_closed_to_them_and_not_replaced(settings: LauncherSettings) -> None:
    verb.enroll(settings, name=None, check=False)
    settings.key_file.chmod(0o644)
    with pytest.raises(LauncherError, match=re.escape(f"run `chmod 600 {settings.key_file}`")) as caught:
        verb.enroll(settings, name=None, check=False)
    assert "--new-key" not in str(caught.value)

    new_key(settings)
    assert old_of(settings).stat().st_mode & 0o777 == 0o600, "one that is kept is closed to them too"


def test_what_cannot_be_replaced_is_named_and_stays(settings: LauncherSettings) -> None:
    settings.key_file.mkdir(parents=True)
    with pytest.raises(LauncherError, match=re.escape(f"{settings.key_file} cannot be made")):
        new_key(settings)
    assert [path.name for path in settings.key_file.parent.iterdir()] == ["relay_key"]


def test_what_is_printed_can_be_pasted_into_the_sample_inventory_as_it_is(machine: Machine) -> None:
    text = machine.run("enroll", "--name", "laptop").stdout
    key = json.loads(machine.run("enroll", "--json").stdout)["public_key"]
    block = re.search(r"^ *relay_clients:\n.*\n", text, flags=re.MULTILINE)
    assert block
    sample = SAMPLE.read_text()
    pasted, count = re.subn(r"^ *#? ?relay_clients:.*\n(?: *#? +- .*\n)*", block[0], sample, flags=re.MULTILINE)
    assert count == 1

    was, now = (yaml.safe_load(content)["relay"]["vars"] or {} for content in (sample, pasted))

    assert now == {**was, "relay_clients": [{"name": "laptop", "key": key}]}


def test_a_person_is_told_what_becomes_of_the_key_before(machine: Machine) -> None:
    assert "relay_key.old" not in machine.run("enroll").stdout
    told = machine.run("enroll", "--new-key").stdout
    assert "is kept as" in told
    assert "relay_key.old, and used no more" in told
