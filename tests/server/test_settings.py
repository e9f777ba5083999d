"""Settings: what each variable may be, and what is said if it is something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from opencode_mcp.errors import SettingsError
from opencode_mcp.settings import Settings, load_settings

TRANSPORTS = {"local-relay": None, "other": None}


def test_without_any_variable_the_documented_defaults_hold() -> None:
    assert load_settings({}, TRANSPORTS) == Settings(
        registry_dir=Path("/tmp/opencode-relay"),
        discovery_interval=30.0,
        health_timeout=3.0,
        transport="local-relay",
        send_timeout=300.0,
        credentials_file=None,
        ports=range(1024, 65536),
    )


def test_an_empty_variable_counts_as_unset() -> None:
    assert load_settings({"SEND_TIMEOUT_MS": "", "TRANSPORT": " "}, TRANSPORTS) == Settings()


def test_every_variable_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    secrets = tmp_path / "credentials.json"
    secrets.write_text("{}")
    environment = {
        "RELAY_REGISTRY_DIR": "~/registry",
        "DISCOVERY_INTERVAL_MS": "100",
        "HEALTH_CHECK_TIMEOUT_MS": "60000",
        "TRANSPORT": "other",
        "SEND_TIMEOUT_MS": "45000",
        "RELAY_CREDENTIALS_FILE": str(secrets),
        "RELAY_PORT_RANGE": "10000-19999",
    }
    assert load_settings(environment, TRANSPORTS) == Settings(
        registry_dir=tmp_path / "registry",
        discovery_interval=0.1,
        health_timeout=60.0,
        transport="other",
        send_timeout=45.0,
        credentials_file=secrets,
        ports=range(10_000, 20_000),
    )


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
        ("RELAY_PORT_RANGE", "5000-4000", "LOW-HIGH"),
        ("RELAY_PORT_RANGE", "80-4000", "LOW-HIGH"),
        ("RELAY_PORT_RANGE", "1024-65536", "LOW-HIGH"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable_and_the_allowed_values(
    variable: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({variable: value}, TRANSPORTS)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{variable} is {value[:10]!r}"[:-1])
    assert allowed in line
    assert len(line) < 250
