"""`gateway.json` and the command line: what is served is said, and mistakes are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from opencode_gateway.cli import cli
from opencode_gateway.configuration import Configuration, load_configuration
from opencode_gateway.errors import ConfigError
from support.gateway.service import FIXTURE_SERVER

COMMAND = str(Path(sys.executable).with_name("opencode-gateway"))


def gateway(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **(env or {})}
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, env=environ)


def written(directory: Path, **values: Any) -> Path:
    file = directory / "gateway.json"
    file.write_text(json.dumps({"public_url": "https://relay.example.org", **values}))
    return file


def test_the_address_alone_is_enough(tmp_path: Path) -> None:
    configuration = load_configuration(written(tmp_path))

    assert configuration.resource == "https://relay.example.org/mcp"
    assert configuration.listen == "127.0.0.1:8790"
    assert configuration.sign_in.mode == "password"


OIDC = {"mode": "oidc", "client_id": "x", "client_secret_file": "/secret", "users": {"a@example.org": ["observe"]}}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"public_url": "http://relay.example.org"}, "public_url: must be https://HOST, or http on loopback"),
        ({"public_url": "https://relay.example.org/x"}, "public_url: must have no path, query or user"),
        ({"public_url": "https://relä.example.org"}, "public_url: must be a plain host: write an international name"),
        ({"approvals": "nowhere"}, "approvals: "),
        ({"passkey_for": ["once"]}, "`passkey_for` with `once` needs `always` in it, too, and `approvals` to be"),
        ({"passkey_for": ["always", "once"]}, "`passkey_for` with `once` needs `always` in it, too, and `approvals`"),
        ({"listen": "0.0.0.0:8790"}, "listen: must be 127.0.0.1:PORT or [::1]:PORT"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"tool_timeout_seconds": 0}, "tool_timeout_seconds: Input should be greater than 0"),
        ({"audit": {"max_bytes": 1}}, "audit.max_bytes: Input should be greater than or equal to 100000"),
        ({"capabilities": {"admin": ["send"]}}, "capabilities.admin"),
        ({"sign_in": OIDC | {"issuer": "http://id.example.org"}}, "sign_in.oidc: `issuer` must be https://…"),
        (
            {"clients": {"known": ["vs-code"]}},
            "clients.known: no client is known as 'vs-code': the nearest are vscode",
        ),
        (
            {"clients": {"known": ["librechat"]}},
            "clients.known: LibreChat lives at your own host: write librechat@HOST",
        ),
        # `check` took it, and then no client could register.
        ({"clients": {"redirect_uris": ["not a uri"]}}, "clients.redirect_uris: 'not a uri' is no address: write"),
        # It matched no document's host, ever.
        (
            {"clients": {"client_id_hosts": ["https://chat.example.org"]}},
            "clients.client_id_hosts: 'https://chat.example.org' is no host: write HOST",
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_keys_path(tmp_path: Path, values: dict[str, Any], told: str) -> None:
    file = written(tmp_path, **values)

    with pytest.raises(ConfigError) as caught:
        load_configuration(file)

    assert str(caught.value).startswith(f"{file}: {told}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("clients", "instead"),
    [
        ({"redirect_uris": ["https://chatgpt.com/connector/oauth/*"]}, "in `known`, which is chatgpt"),
        (
            {"redirect_uris": ["https://chatgpt.com/*"]},
            "write the exact address, or name its client in `known`, which is chatgpt",
        ),
        ({"redirect_uris": ["http://localhost:*/callback"]}, "`loopback_redirects` allows every port"),
        (
            {"redirect_uris": ["https://chat.example.org/api/mcp/*/oauth/callback"]},
            "name its client in `known`, which is librechat@chat.example.org",
        ),
        ({"redirect_uris": ["https://*.example.org/api/mcp/x/oauth/callback"]}, "one of claude, chatgpt, "),
        ({"redirect_uris": ["*"]}, "write the exact address"),
        ({"client_id_hosts": ["*.claude.ai"]}, "write each of them out"),
        ({"known": ["*"]}, "name each client; there are claude, chatgpt, "),
        ({"known": ["librechat@*.example.org"]}, "name each client"),
    ],
)
@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_wildcard_is_refused_with_what_to_write_instead(
    tmp_path: Path, clients: dict[str, Any], instead: str, command: str
) -> None:
    file = written(tmp_path, clients=clients)

    done = CliRunner().invoke(cli, ["--config", str(file), command])

    (field,) = clients
    assert done.exit_code == 2
    refused = f"wildcards are not taken, as in '{clients[field][0]}': "
    assert done.stderr.startswith(f"opencode-gateway: {file}: clients.{field}: {refused}")
    assert instead in done.stderr


def test_settings_of_clients_from_before_stay_valid() -> None:
    clients = {
        "redirect_uris": ["https://chat.example.org/cb"],
        "loopback_redirects": True,
        "client_id_hosts": ["chat.example.org:8443"],
        "enrolment": "open",
    }

    read = Configuration.model_validate({"public_url": "https://relay.example.org", "clients": clients}).clients

    assert read.redirect_uris == ("https://chat.example.org/cb",)
    assert (read.loopback_redirects, read.enrolment, read.known) == (True, "open", ())


def test_check_says_which_clients_are_on(tmp_path: Path) -> None:
    clients = {"known": ["vscode", "librechat@Chat.example.org"], "loopback_redirects": True}

    done = CliRunner().invoke(cli, ["--config", str(written(tmp_path, clients=clients)), "check"])

    assert (
        "claude (default), chatgpt (default), vscode (gateway.json), librechat@chat.example.org (gate" in done.stdout
    )
    assert "  a redirect address: any at loopback" in done.stdout
    replaced = {"redirect_uris": ["https://chat.example.org/cb"]}
    done = CliRunner().invoke(cli, ["--config", str(written(tmp_path, clients=replaced)), "check"])
    assert "clients: none;" in done.stdout
    assert "  a redirect address: https://chat.example.org/cb" in done.stdout


def test_a_capability_that_is_left_out_has_no_tools() -> None:
    configuration = Configuration(public_url="https://relay.example.org", capabilities={"observe": ("read",)})

    assert configuration.capabilities == {"observe": ("read",), "approve": (), "drive": ()}


def test_check_says_what_would_be_served_and_no_value_of_a_variable(tmp_path: Path) -> None:
    servers = tmp_path / "servers.json"
    servers.write_text(
        json.dumps({"opencode": {"command": "opencode-mcp", "env": {"KEY": "s3cret"}, "tools": ["read"]}})
    )

    done = gateway("--config", str(written(tmp_path, servers_file=str(servers))), "check")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "https://relay.example.org/mcp on 127.0.0.1:8790, sign-in: password",
        (
            "clients: claude (default), chatgpt (default); "
            "`sudo opencode-gateway clients known` has what commands switched, too"
        ),
        "observe: instances, inbox, read, sessions, changes, wait",
        "approve: reply",
        "drive: send, control",
        "approvals: in chats and on the page",
        "server opencode: opencode-mcp; the tools read",
        "  its variables: KEY, PATH, RELAY_CALLERS, SEND_TIMEOUT_MS",
    ]


@pytest.mark.parametrize("settings", [{"approvals": "page"}, {"passkey_for": ["always"]}])
@pytest.mark.parametrize("env", [None, {"RELAY_CALLERS": ""}])
def test_check_refuses_to_leave_approvals_to_a_page_that_is_not_there(
    tmp_path: Path, settings: dict[str, Any], env: dict[str, str] | None
) -> None:
    entry = {"command": "opencode-mcp", "env": env or {}}
    servers = tmp_path / "servers.json"
    servers.write_text(json.dumps({"opencode": entry} if env else {"another": entry}))

    done = gateway("--config", str(written(tmp_path, servers_file=str(servers), **settings)), "check")

    assert done.returncode == 2
    assert "needs the page" in done.stderr


def test_check_refuses_passkeys_at_an_address_that_can_have_none(tmp_path: Path) -> None:
    settings = {"public_url": "http://127.0.0.1:8790", "passkey_for": ["always"]}

    done = gateway("--config", str(written(tmp_path, **settings)), "check")

    assert done.returncode == 2
    assert "needs the page at a name" in done.stderr


def test_whoever_drives_has_reply_too_where_it_decides_nothing() -> None:
    configuration = Configuration(public_url="https://relay.example.org", approvals="page")
    assert configuration.tools["drive"] == ("send", "control", "reply")
    without = Configuration(
        public_url="https://relay.example.org", approvals="page", capabilities={"drive": ("send",)}
    )
    assert without.tools["drive"] == ("send",)
    assert Configuration(public_url="https://relay.example.org").tools["drive"] == ("send", "control")


OLD_MAP = {"observe": ["instances", "read"], "approve": ["reply"], "drive": ["send", "abort"]}
"""As people wrote one out before there were more tools."""


def test_an_old_map_is_told_by_check_with_what_it_has_too_much_and_too_little(tmp_path: Path) -> None:
    config = written(tmp_path, capabilities=OLD_MAP)

    done = gateway("--config", str(config), "check")

    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "opencode-gateway: warning: `capabilities` of gateway.json lists what no server has: abort; take it out",
        (
            "opencode-gateway: warning: no capability lists changes, control, inbox, sessions, wait, so nobody may "
            "use it; add what people need to `capabilities` of gateway.json: changes, inbox, sessions, wait to "
            "observe; control to drive"
        ),
    ]


def test_check_asks_servers_that_it_starts_for_their_tools(tmp_path: Path) -> None:
    servers = tmp_path / "servers.json"
    entry = {"command": sys.executable, "args": [str(FIXTURE_SERVER)]}
    servers.write_text(json.dumps({"opencode": entry, "other": entry, "broken": {"command": "false"}}))
    tools = {"observe": ["instances", "read", "send", "reply", "unlisted", "other_read", "other_x", "broken_x"]}
    config = written(tmp_path, servers_file=str(servers), capabilities=tools)

    assert gateway("--config", str(config), "check").stderr == ""
    done = gateway("--config", str(config), "check", "--start")

    assert done.returncode == 1
    assert "no tools came from broken: see why above" in done.stderr
    assert "lists what no server has: other_x; take it out" in done.stderr
    assert "no capability lists other_instances, other_reply, other_send, other_unlisted, so" in done.stderr


def test_check_finds_a_command_that_is_not_there(tmp_path: Path) -> None:
    servers = tmp_path / "servers.json"
    servers.write_text(json.dumps({"other": {"command": "no-such-program"}}))

    done = gateway("--config", str(written(tmp_path, servers_file=str(servers))), "check")

    assert done.returncode == 2
    assert done.stderr == f"opencode-gateway: {servers}: other.command: no-such-program is not found\n"


@pytest.mark.parametrize("command", ["check", "serve", "health"])
def test_a_missing_configuration_is_one_line_and_exit_code_2(tmp_path: Path, command: str) -> None:
    missing = tmp_path / "gateway.json"

    done = gateway(command, env={"GATEWAY_CONFIG": str(missing)})

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"opencode-gateway: {missing} is missing: write it, or name another with --config\n"


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_mistake_in_servers_json_is_one_line_and_exit_code_2(tmp_path: Path, command: str) -> None:
    servers = tmp_path / "servers.json"
    servers.write_text('{"mcpServers": {"opencode": {"args": []}}}')
    config = written(tmp_path, servers_file=str(servers), data_dir=str(tmp_path / "data"))

    done = gateway("--config", str(config), command)

    assert done.returncode == 2
    assert done.stderr == f"opencode-gateway: {servers}: mcpServers.opencode.command: Field required\n"
