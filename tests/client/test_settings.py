"""Settings from the environment and the user's configuration file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_connected import settings
from opencode_connected.errors import UsageError
from opencode_connected.relay import line_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's configuration file would be."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = settings.load({}).config_file
    path.parent.mkdir(parents=True)
    return path


def test_without_any_setting_the_defaults_hold(config_file: Path) -> None:
    loaded = settings.load({})
    assert loaded.relay_ssh_cmd is None
    assert loaded.registry_dir == "/tmp/opencode-relay"
    assert loaded.instance_name is None
    assert loaded.relay_ports == ()
    assert loaded.config_file == config_file


def test_the_environment_beats_the_file_setting_by_setting(config_file: Path) -> None:
    config_file.write_text('relay_ssh_cmd = "ssh me@file"\ninstance_name = "from file"\nrelay_ports = "2000-2002"\n')
    loaded = settings.load({"RELAY_SSH_CMD": "ssh -p 22 me@environment", "INSTANCE_NAME": ""})
    assert loaded.relay_ssh_cmd == "ssh -p 22 me@environment"
    assert loaded.instance_name == "from file"
    assert loaded.relay_ports == (2000, 2001, 2002)


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("RELAY_SSH_CMD", "ssh 'me@relay", "as a shell takes it"),
        ("RELAY_REGISTRY_DIR", "relative/path", "absolute path"),
        ("RELAY_REGISTRY_DIR", "/srv/../etc", "absolute path"),
        ("RELAY_REGISTRY_DIR", "/srv/a\x1bb", "absolute path"),
        ("INSTANCE_NAME", "a/b", "1 to 64 printable characters"),
        ("RELAY_PORTS", "80-90", "1024-65535"),
        ("RELAY_PORTS", "2000-1999", "1024-65535"),
        ("RELAY_PORTS", "all", "1024-65535"),
        ("RELAY_CLIENT", "a b", "1 to 32 letters"),
        ("RELAY_CLIENT", "-a", "1 to 32 letters"),
    ],
)
def test_a_bad_value_is_one_line_naming_the_variable_and_what_is_allowed(
    config_file: Path, variable: str, value: str, allowed: str
) -> None:
    with pytest.raises(UsageError) as caught:
        settings.load({variable: value})
    line = str(caught.value)
    assert line.startswith(variable)
    assert allowed in line
    assert line.isprintable()
    assert caught.value.exit_code == 2
    assert config_file.parent.is_dir()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('relay_ports = "80"', "relay_ports in "),
        ("relay_ports = 10000", "must be a string"),
        ('relay_port = "10000"', "unknown setting 'relay_port'"),
        ("not toml", "not valid TOML"),
        ("x" * 70_000, "larger than"),
        ('relay_client = "ä"', "relay_client in "),
    ],
)
def test_a_bad_configuration_file_is_named_with_what_is_wrong_in_it(
    config_file: Path, content: str, named: str
) -> None:
    config_file.write_text(content)
    with pytest.raises(UsageError, match=named) as caught:
        settings.load({})
    assert str(config_file) in str(caught.value)


@pytest.mark.parametrize("content", ["not toml", "relay_ports = 10000", 'relay_port = "10000"', "x" * 70_000])
def test_a_damaged_configuration_file_comes_with_the_next_step(config_file: Path, content: str) -> None:
    config_file.write_text(content)
    with pytest.raises(UsageError, match=r"mend it, or move the file away, .*opencode-connected enroll --join"):
        settings.load({})


def test_where_may_be_opened_from_afar_stands_in_the_file_alone(config_file: Path, tmp_path: Path) -> None:
    assert settings.load({"OPEN_BELOW": "/"}).open_below == ()
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "work")
    config_file.write_text(f'open_below = ["~/link", "{tmp_path}/work", "/srv"]\n')
    loaded = settings.load({})
    assert loaded.open_below == (str((tmp_path / "work").resolve()), "/srv")
    assert loaded.directories == ()
    for wrong in ('"~/work"', '["work"]', "[5]", '["~nobody-of-that-name/work"]'):
        config_file.write_text(f"open_below = {wrong}\n")
        with pytest.raises(UsageError, match="open_below"):
            settings.load({})


def test_the_ssh_command_is_called_what_it_is_where_it_stands(config_file: Path) -> None:
    def name(environment: dict[str, str]) -> str:
        return line_settings(settings.load(environment), local_port=4096, instance_id="0" * 32).command_name

    config_file.write_text('relay_ssh_cmd = "ssh me@file"\n')
    assert name({}) == f"relay_ssh_cmd in {config_file}"
    assert name({"RELAY_SSH_CMD": "ssh me@environment"}) == "RELAY_SSH_CMD"


def test_opencode_inherits_the_environment_but_for_what_npm_exec_left_in_it(config_file: Path) -> None:
    inherited = {"OPENCODE_CONFIG": "/x.json", "PATH": "/bin", "RELAY_PORTS": "2000", "npm_config_cache": "/c"}
    loaded = settings.load({**inherited, "npm_config_package": "opencode-relay"})
    assert loaded.environment == inherited
    assert config_file.parent.is_dir()


def test_a_password_shows_in_no_representation(config_file: Path) -> None:
    loaded = settings.load({"OPENCODE_SERVER_PASSWORD": "hunter2", "OPENCODE_SERVER_USERNAME": "ann"})
    assert loaded.opencode_credentials == ("ann", "hunter2")
    assert "hunter2" not in repr(loaded)
    assert config_file.parent.is_dir()


def test_a_provisioned_relay_may_speak_up_unless_a_registry_directory_was_named(config_file: Path) -> None:
    def mark(environment: dict[str, str]) -> str | None:
        return line_settings(settings.load(environment), local_port=4096, instance_id="0" * 32).provisioned_mark

    assert mark({}) == "/etc/opencode-relay/relay.json"
    assert mark({"RELAY_REGISTRY_DIR": settings.DEFAULT_REGISTRY_DIR}) is None
    config_file.write_text('relay_registry_dir = "/srv/mine"\n')
    assert mark({}) is None
