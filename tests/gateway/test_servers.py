"""`servers.json`: both forms, what a child gets of the environment, and mistakes said in one line."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway.calls.servers import Server, default_servers, load_servers
from opencode_gateway.errors import ConfigError
from support.gateway.service import Gateway, fixture_entry

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = (
    '{"mcpServers":{"opencode":{"command":"opencode-mcp","args":[],"transport":"stdio",'
    '"env":{"RELAY_REGISTRY_DIR":"/tmp/opencode-relay"}}}}'
)
"""As README and issue have it."""
FLAT = {
    "opencode": {
        "transport": "stdio",
        "command": "opencode-mcp",
        "args": [],
        "env_keys": ["RELAY_REGISTRY_DIR"],
        "tools": "*",
    }
}


def load(directory: Path, content: object) -> dict[str, Server]:
    file = directory / "servers.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return load_servers(file)


def test_the_documented_example_is_read(tmp_path: Path) -> None:
    server = load(tmp_path, EXAMPLE)["opencode"]

    assert server.command == "opencode-mcp"
    assert server.env == {"RELAY_REGISTRY_DIR": "/tmp/opencode-relay"}
    assert server.tools == "*"


def test_the_flat_form_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, FLAT)["opencode"].env_keys == ("RELAY_REGISTRY_DIR",)


def test_both_forms_mean_the_same(tmp_path: Path) -> None:
    assert load(tmp_path, FLAT) == load(tmp_path, {"mcpServers": FLAT})


def test_a_flat_server_may_be_called_as_the_wrapper_is(tmp_path: Path) -> None:
    assert list(load(tmp_path, {"mcpServers": {"command": "x"}})) == ["mcpServers"]


def test_without_a_file_the_opencode_server_is_served_alone() -> None:
    assert load_servers(None) == default_servers()
    assert list(default_servers()) == ["opencode"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "EOF while parsing an object at line 1 column 1"),
        ([], "Input should be a valid dictionary"),
        ({}, "Dictionary should have at least 1 item after validation, not 0"),
        ({"a": {}}, "a.command: Field required"),
        ({"a": {"command": ""}}, "a.command: String should have at least 1 character"),
        ({"a": {"command": "x", "args": "y"}}, "a.args: Input should be a valid tuple"),
        ({"a": {"command": "x", "args": [1]}}, "a.args.0: Input should be a valid string"),
        ({"a": {"command": "x", "transport": "http"}}, "a.transport: Input should be 'stdio'"),
        ({"a": {"command": "x", "url": "y"}}, "a.url: Extra inputs are not permitted"),
        ({"a": {"command": "x", "env": {"A": 1}}}, "a.env.A: Input should be a valid string"),
        ({"a": {"command": "x", "tools": "some"}}, 'a.tools: must be "*", or a list of names'),
        (
            {"a": {"command": "x", "env_keys": ["GATEWAY_CONFIG"]}},
            "a.env_keys.0: GATEWAY_CONFIG is the gateway's own, and is passed to no server",
        ),
        ({"a b": {"command": "x"}}, "a b: a name has letters, digits and '-' only, 40 at most"),
        ({"a_b": {"command": "x"}}, "a_b: a name has letters, digits and '-' only, 40 at most"),
        ({"mcpServers": {"a": {}}}, "mcpServers.a.command: Field required"),
        (
            {"mcpServers": FLAT, "inputs": []},
            "inputs: stands beside `mcpServers`; servers belong inside it",
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_keys_path(tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)

    assert str(caught.value) == f"{tmp_path / 'servers.json'}: {told}"


def test_a_mistake_does_not_repeat_what_may_be_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"a": {"command": "x", "env": {"KEY": ["s3cret"]}}})

    assert "s3cret" not in str(caught.value)


def test_a_missing_file_is_named_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"servers\.json is missing: write it, or leave `servers_file` out"):
        load_servers(tmp_path / "servers.json")


def environment(environ: dict[str, str], **entry: Any) -> dict[str, str]:
    return Server(**{"command": "x", **entry}).environment("notes", environ, 45.0)


def test_a_child_gets_what_its_entry_lists_and_little_else() -> None:
    environ = {
        "PATH": "/bin",
        "HOME": "/h",
        "LANG": "C",
        "A": "1",
        "B": "2",
        "GATEWAY_CONFIG": "/x",
        "PYTHONPATH": "y",
    }

    assert environment(environ, env_keys=["A", "NOT_SET"], env={"C": "3"}) == {
        "PATH": "/bin",
        "HOME": "/h",
        "LANG": "C",
        "A": "1",
        "C": "3",
    }


def test_an_entrys_own_value_is_above_the_gateways() -> None:
    assert environment({"A": "1"}, env_keys=["A"], env={"A": "2"}) == {"A": "2"}


@pytest.mark.parametrize("command", ["opencode-mcp", "/opt/opencode-relay/bin/opencode-mcp"])
def test_the_opencode_server_ends_its_calls_before_chat_clients_cut_them(command: str) -> None:
    assert environment({}, command=command)["SEND_TIMEOUT_MS"] == "45000"
    assert environment({}, command=command, env={"SEND_TIMEOUT_MS": "9000"})["SEND_TIMEOUT_MS"] == "9000"
    assert "SEND_TIMEOUT_MS" not in environment({}, command="another")


@pytest.mark.parametrize(
    ("name", "entry", "is_told"),
    [
        ("opencode", {"command": "opencode-mcp"}, True),
        # As it is started in a container, or under a second name.
        ("opencode", {"command": "docker"}, True),
        ("home", {"command": "/opt/opencode-relay/bin/opencode-mcp"}, True),
        ("home", {"command": "docker", "env": {"RELAY_CALLERS": "told"}}, True),
        ("opencode", {"command": "opencode-mcp", "env": {"RELAY_CALLERS": ""}}, False),
        ("notes", {"command": "notes-mcp"}, False),
    ],
)
def test_the_opencode_server_alone_is_told_who_calls(name: str, entry: dict[str, Any], is_told: bool) -> None:
    server = Server(**entry)

    assert server.is_told_callers(name) is is_told
    assert (server.environment(name, {}, 45.0).get("RELAY_CALLERS") == "told") is is_told


async def test_the_running_child_has_that_environment(tmp_path: Path) -> None:
    entry = fixture_entry(env={"OWN": "1"}, env_keys=["LISTED"])
    env = {"LISTED": "2", "UNLISTED": "3", "GATEWAY_CONFIG": "/x", "USER": "root"}
    with Gateway(tmp_path, {"fixture": entry}, env=env) as gateway:
        async with gateway.client() as client:
            seen = (await client.call("instances")).structured

    # The SDK adds these, if they are set; Python's own start adds the last.
    allowed = {"LOGNAME", "SHELL", "TERM", "USER", "LC_CTYPE"}
    assert set(seen) - allowed == {"OWN", "LISTED"} | ({"PATH", "HOME", "LANG", "TMPDIR"} & {"PATH", *os.environ})
