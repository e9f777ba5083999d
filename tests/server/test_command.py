"""The command `opencode-mcp`: its settings, its exit codes, and what it says when it cannot start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import httpx
import pytest

from support.chat import mcp_client
from support.chat.mcp_client import SERVER_COMMAND
from support.fleet.registry import register, registration

if TYPE_CHECKING:
    from pathlib import Path

BLOCKED_IMPORT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from opencode_mcp.cli import main
sys.argv = ["opencode-mcp"]
main()
"""
"""The command, in a Python where one package is not installed."""
ON_A_RELAY = """\
#!{python}
from pathlib import Path
from opencode_mcp.cli import main
main(Path({relay_json!r}))
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a client that says nothing and goes away."""
    return subprocess.run(
        command or [str(SERVER_COMMAND)],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("variable", "allowed"),
    [("TRANSPORT", "one of: local-relay"), ("LOG_LEVEL", "one of: DEBUG, INFO, WARNING, ERROR")],
)
def test_a_bad_setting_is_one_line_and_exit_code_two(variable: str, allowed: str) -> None:
    ended = run(**{variable: "carrier-pigeon"})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"opencode-mcp: {variable} is 'carrier-pigeon'; it must be {allowed}\n"


def test_credentials_of_another_shape_are_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text("secret")
    file.chmod(0o600)
    ended = run(RELAY_CREDENTIALS_FILE=str(file))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("opencode-mcp: RELAY_CREDENTIALS_FILE is ")
    assert "it must be JSON like" in ended.stderr
    assert "secret" not in ended.stderr


def on_a_relay(relay_json: Path) -> Path:
    """Return a command that is `opencode-mcp` on a relay with this `relay.json`."""
    command = relay_json.with_name("opencode-mcp")
    command.write_text(ON_A_RELAY.format(python=sys.executable, relay_json=str(relay_json)))
    command.chmod(0o755)
    return command


async def test_on_a_provisioned_relay_it_looks_where_the_agent_registers(
    tmp_path: Path, registry_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay_json = tmp_path / "relay.json"
    relay_json.write_text(json.dumps({"registryDir": str(registry_dir), "portRange": "10000-10001"}))
    register(registry_dir, registration("inside", 10_000))
    register(registry_dir, registration("outside", 9999))
    monkeypatch.setattr(mcp_client, "SERVER_COMMAND", on_a_relay(relay_json))
    async with mcp_client.relay_client(tmp_path, env={"RELAY_REGISTRY_DIR": ""}) as client:
        listed = (await client.call("instances")).structured
        assert [row["name"] for row in listed["instances"]] == ["inside"]
        assert listed["problems"] == ["ignored 'outside.json': port: outside 10000-10001"]


def test_damaged_settings_of_the_relay_are_one_line_and_exit_code_two(tmp_path: Path) -> None:
    relay_json = tmp_path / "relay.json"
    relay_json.write_text("{")
    ended = run(str(on_a_relay(relay_json)))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"opencode-mcp: {relay_json} is not a JSON object; run the playbook relay.yml again, or set "
        "RELAY_REGISTRY_DIR\n"
    )


def test_the_end_of_its_client_is_a_clean_exit_and_a_registry_that_is_missing_is_not_made(tmp_path: Path) -> None:
    ended = run(RELAY_REGISTRY_DIR=str(tmp_path / "missing"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_though_its_client_still_holds_its_input(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "RELAY_REGISTRY_DIR": str(tmp_path)}
    with subprocess.Popen([SERVER_COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
        server.stdin.flush()
        assert server.stdout.readline()
        server.send_signal(number)
        assert server.wait(30) == 128 + number


@pytest.mark.parametrize("package", ["mcp", "anyio"])
def test_without_its_extra_the_command_says_in_one_line_what_to_install(package: str) -> None:
    ended = run(sys.executable, "-c", BLOCKED_IMPORT.format(name=package))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"opencode-mcp: {package} is not installed: it comes with the extra server. In a clone of opencode-relay: "
        "pipx install --force '.[server]'\n"
    )


def test_with_page_it_serves_pages_until_it_is_interrupted(tmp_path: Path) -> None:
    environment = {**os.environ, "RELAY_REGISTRY_DIR": str(tmp_path)}
    with subprocess.Popen([SERVER_COMMAND, "--page"], stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        link = server.stdout.readline().decode().split()[-1]
        assert httpx.get(link, timeout=30).headers["location"] == "/inbox"
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def test_it_serves_pages_or_runs_a_command() -> None:
    ended = run(str(SERVER_COMMAND), "--page", "tools")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "opencode-mcp: --page is for serving, not for commands; see `opencode-mcp --help`\n"


def test_it_says_its_version_and_what_it_takes_without_starting() -> None:
    assert run(str(SERVER_COMMAND), "--version").stdout == f"opencode-mcp {version('opencode-relay')}\n"
    assert "RELAY_REGISTRY_DIR" in run(str(SERVER_COMMAND), "--help").stdout
    assert run(str(SERVER_COMMAND), "--no-such-option").returncode == 2
