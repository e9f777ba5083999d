"""Settings: what each variable may be, and what is said if it is something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opencode_fleet.errors import SettingsError
from opencode_fleet.settings import ServerSettings, load_settings

TRANSPORTS = {"local-relay": None, "other": None}
NO_RELAY = Path("/nonexistent/relay.json")
USER = "/home/me/.local/state/opencode-relay"
RELAY_JSON = {
    "portRange": "10000-19999",
    "blockSize": 16,
    "registryDir": "/var/lib/opencode-relay",
    "tunnelUser": "opencode-tunnel",
    "agentUser": "opencode-relay",
    "socket": "/run/opencode-relay.sock",
}
"""As the role writes it."""


@pytest.fixture
def relay_json(tmp_path: Path) -> Path:
    """The settings of a provisioned relay."""
    path = tmp_path / "relay.json"
    path.write_text(json.dumps(RELAY_JSON))
    return path


def test_without_any_variable_the_documented_defaults_hold() -> None:
    assert load_settings({}, TRANSPORTS, NO_RELAY) == ServerSettings(
        registry_dir=Path("/tmp/opencode-relay"),
        discovery_interval=30.0,
        health_timeout=3.0,
        transport="local-relay",
        send_timeout=300.0,
        credentials_file=None,
        ports=range(1024, 65536),
    )


def test_an_empty_variable_counts_as_unset() -> None:
    assert load_settings({"SEND_TIMEOUT_MS": "", "TRANSPORT": " "}, TRANSPORTS, NO_RELAY) == ServerSettings()


def test_every_variable_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    secrets = tmp_path / "credentials.json"
    secrets.write_text("{}")
    secrets.chmod(0o600)
    environment = {
        "RELAY_REGISTRY_DIR": "~/registry",
        "DISCOVERY_INTERVAL_MS": "100",
        "HEALTH_CHECK_TIMEOUT_MS": "60000",
        "TRANSPORT": "other",
        "SEND_TIMEOUT_MS": "45000",
        "RELAY_CREDENTIALS_FILE": str(secrets),
        "RELAY_PORT_RANGE": "10000-19999",
        "RELAY_STATE_DIR": "~/state",
        "RELAY_JOURNAL_DAYS": "365",
        "RELAY_CALLERS": "told",
        "RELAY_UPLOADS_DIR": "/var/lib/opencode-gateway/uploads",
        "RELAY_UPLOADS_URL": "https://relay.example.org/upload/",
    }
    assert load_settings(environment, TRANSPORTS, NO_RELAY) == ServerSettings(
        registry_dir=tmp_path / "registry",
        discovery_interval=0.1,
        health_timeout=60.0,
        transport="other",
        send_timeout=45.0,
        credentials_file=secrets,
        ports=range(10_000, 20_000),
        state_dir=tmp_path / "state",
        journal_days=365,
        callers_told=True,
        uploads_dir=Path("/var/lib/opencode-gateway/uploads"),
        uploads_url="https://relay.example.org/upload",
    )


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({"XDG_STATE_HOME": "/xdg", "HOME": "/home/me"}, Path("/xdg/opencode-relay")),
        ({"XDG_STATE_HOME": "xdg", "HOME": "/home/me"}, Path("/home/me/.local/state/opencode-relay")),
        ({"HOME": "/home/me", "RELAY_STATE_DIR": "/own"}, Path("/own")),
        ({"HOME": ""}, None),
        ({"HOME": "/home/me", "RELAY_REGISTRY_DIR": "/tmp/opencode-relay/"}, Path(USER)),
        ({"HOME": "/home/me", "RELAY_REGISTRY_DIR": "/own"}, Path(USER, "registry-4840ee376d39")),
        ({"HOME": "/home/me", "RELAY_REGISTRY_DIR": "/own", "RELAY_STATE_DIR": "/state"}, Path("/state")),
    ],
)
def test_the_journal_lies_with_what_else_programs_of_the_user_remember(
    environment: dict[str, str], directory: Path | None
) -> None:
    assert load_settings(environment, TRANSPORTS, NO_RELAY).state_dir == directory


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("RELAY_REGISTRY_DIR", "relative/path", "an absolute path"),
        ("RELAY_REGISTRY_DIR", "~no-such-user/registry", "an absolute path"),
        ("DISCOVERY_INTERVAL_MS", "soon", "a whole number of milliseconds from 100 to 3600000"),
        ("DISCOVERY_INTERVAL_MS", "0", "from 100 to 3600000"),
        ("DISCOVERY_INTERVAL_MS", "9" * 5000, "from 100 to 3600000"),
        ("HEALTH_CHECK_TIMEOUT_MS", "-5", "from 50 to 60000"),
        ("HEALTH_CHECK_TIMEOUT_MS", "3000.5", "from 50 to 60000"),
        ("SEND_TIMEOUT_MS", "\u0663\u0664\u0665\u0666", "from 1000 to 86400000"),
        ("SEND_TIMEOUT_MS", "999", "from 1000 to 86400000"),
        ("TRANSPORT", "carrier-pigeon", "one of: local-relay, other"),
        ("RELAY_CREDENTIALS_FILE", "/nonexistent/credentials.json", "an absolute path of a readable JSON file"),
        ("RELAY_CREDENTIALS_FILE", "/", "an absolute path of a readable JSON file"),
        ("RELAY_CREDENTIALS_FILE", "/" + "x" * 5000, "an absolute path of a readable JSON file"),
        ("RELAY_PORT_RANGE", "4096", "LOW-HIGH"),
        ("RELAY_CALLERS", "yes", "told"),
        ("RELAY_UPLOADS_DIR", "uploads", "an absolute path"),
        ("RELAY_UPLOADS_URL", "relay.example.org", "an address"),
        ("RELAY_PORT_RANGE", "5000-4000", "LOW-HIGH"),
        ("RELAY_PORT_RANGE", "80-4000", "LOW-HIGH"),
        ("RELAY_PORT_RANGE", "1024-65536", "LOW-HIGH"),
        ("RELAY_STATE_DIR", "relative/path", "an absolute path"),
        ("RELAY_JOURNAL_DAYS", "0", "a whole number of days from 1 to 365"),
        ("RELAY_JOURNAL_DAYS", "366", "a whole number of days from 1 to 365"),
        ("RELAY_JOURNAL_DAYS", "14d", "a whole number of days from 1 to 365"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable_and_the_allowed_values(
    variable: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({variable: value}, TRANSPORTS, NO_RELAY)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{variable} is {value[:10]!r}"[:-1])
    assert allowed in line
    assert len(line) < 250


@pytest.mark.parametrize(
    ("content", "mode", "wanted"),
    [
        ("{}", 0o604, "closed to other users: chmod o= "),
        ("{", 0o600, 'JSON like {"instance": {"username": "opencode", "password": "…"}}'),
        ('{"laptop": "secret"}', 0o600, 'JSON like {"instance": '),
    ],
)
def test_what_is_wrong_with_the_credentials_is_said_at_the_start_without_quoting_them(
    tmp_path: Path, content: str, mode: int, wanted: str
) -> None:
    file = tmp_path / "c.json"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(SettingsError) as refused:
        load_settings({"RELAY_CREDENTIALS_FILE": str(file)}, TRANSPORTS, NO_RELAY)
    assert str(refused.value).startswith(f"RELAY_CREDENTIALS_FILE is {str(file)[:80]!r}; it must be {wanted}")
    assert "secret" not in str(refused.value)


def test_credentials_that_cannot_be_read_are_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.json"
    file.write_text("{}")
    file.chmod(0o600)

    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)  # root, who may run the tests, reads everything
    with pytest.raises(SettingsError, match="it must be readable, and is not: Permission denied"):
        load_settings({"RELAY_REGISTRY_DIR": "/own", "RELAY_CREDENTIALS_FILE": str(file)}, TRANSPORTS)


def test_on_a_provisioned_relay_its_directory_and_ports_are_the_defaults(relay_json: Path) -> None:
    settings = load_settings({"RELAY_REGISTRY_DIR": " "}, TRANSPORTS, relay_json)
    assert settings == ServerSettings(registry_dir=Path("/var/lib/opencode-relay"), ports=range(10_000, 20_000))


def test_a_relay_that_has_no_state_directory_leaves_the_user_s(relay_json: Path) -> None:
    assert load_settings({"HOME": "/home/me"}, TRANSPORTS, relay_json) == ServerSettings(
        registry_dir=Path("/var/lib/opencode-relay"),
        ports=range(10_000, 20_000),
        state_dir=Path(USER, "registry-1f8fdacafd80"),
    )


def test_a_relay_that_has_a_state_directory_gives_it_to_all_copies_of_its_server(relay_json: Path) -> None:
    relay_json.write_text(json.dumps({**RELAY_JSON, "stateDir": "/var/lib/opencode-relay-state", "journalDays": 30}))
    settings = load_settings({"HOME": "/home/me"}, TRANSPORTS, relay_json)
    assert (settings.state_dir, settings.journal_days) == (Path("/var/lib/opencode-relay-state"), 30)
    own = load_settings({"RELAY_STATE_DIR": "/own", "RELAY_JOURNAL_DAYS": "7"}, TRANSPORTS, relay_json)
    assert (own.state_dir, own.journal_days) == (Path("/own"), 7)


def test_on_a_provisioned_relay_the_environment_wins(relay_json: Path) -> None:
    own_ports = load_settings({"RELAY_PORT_RANGE": "2000-3000"}, TRANSPORTS, relay_json)
    assert own_ports == ServerSettings(registry_dir=Path("/var/lib/opencode-relay"), ports=range(2000, 3001))
    assert load_settings({"RELAY_REGISTRY_DIR": "/own"}, TRANSPORTS, relay_json) == ServerSettings(
        registry_dir=Path("/own")
    )


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ("[" * 100_000, "is not a JSON object"),
        ("\udcff", "is not a JSON object"),
        ({"registryDir": None}, "has no registryDir that is an absolute path"),
        ({"registryDir": "opencode-relay"}, "has no registryDir that is an absolute path"),
        ({"registryDir": "/var/\x1b[2J"}, "has no registryDir that is an absolute path"),
        ({"portRange": 10_000}, "has no portRange LOW-HIGH with 1024"),
        ({"portRange": "80-90"}, "has no portRange LOW-HIGH with 1024"),
        ({"portRange": "9" * 5000}, "has no portRange LOW-HIGH with 1024"),
        ({"stateDir": "state"}, "has a stateDir that is no absolute path"),
        ({"stateDir": "/var/\x1b[2J"}, "has a stateDir that is no absolute path"),
        ({"journalDays": 0}, "has a journalDays that is no whole number from 1 to 365"),
        ({"journalDays": "14"}, "has a journalDays that is no whole number from 1 to 365"),
        ({"journalDays": True}, "has a journalDays that is no whole number from 1 to 365"),
    ],
)
def test_damaged_settings_of_a_relay_are_one_line_that_names_the_file_and_the_way_out(
    relay_json: Path, content: str | dict[str, object], wrong: str
) -> None:
    text = content if isinstance(content, str) else json.dumps(RELAY_JSON | content)
    relay_json.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError) as refused:
        load_settings({}, TRANSPORTS, relay_json)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{relay_json} {wrong}")
    assert line.endswith("; run the playbook relay.yml again, or set RELAY_REGISTRY_DIR")
    assert len(line) < 250 + len(str(relay_json))
    # Which is a way out indeed.
    load_settings({"RELAY_REGISTRY_DIR": "/own"}, TRANSPORTS, relay_json)


def test_settings_of_a_relay_that_cannot_be_read_are_not_passed_over(relay_json: Path) -> None:
    relay_json.unlink()
    relay_json.mkdir()
    with pytest.raises(SettingsError, match=r"relay\.json cannot be read: Is a directory; run the playbook"):
        load_settings({}, TRANSPORTS, relay_json)
