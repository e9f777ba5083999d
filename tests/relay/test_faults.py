"""What is left of a registration when something dies, and who else may speak to the agent."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from relay.raw_client import RawClient, hello
from support.line.sshd import unix_user
from support.ports import is_open
from support.waiting import eventually

if TYPE_CHECKING:
    from relay.provisioned import ProvisionedRelay
    from support.opencodes.fake_health import FakeHealth


def test_the_registration_goes_with_sshds_process(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        client.ask(hello(port=port))
        relay.sshd.kill_sessions()
        relay.until_registered()
        client.wait()


def test_the_registration_goes_when_the_client_is_killed(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        client.ask(hello(port=port))
        client.process.send_signal(signal.SIGKILL)
        relay.until_registered()


def test_sessions_end_with_an_agent_that_is_killed_and_the_next_one_begins_with_an_empty_registry(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    port = relay.ports_of("laptop")[0]
    inode = relay.registry.stat().st_ino
    (relay.registry / ".left-over").touch()
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        client.ask(hello(port=port))
        relay.kill_agent()
        try:
            client.wait()
            eventually(lambda: not is_open(port), "the port is free")
        finally:
            relay.start_agent()
    assert list(relay.registry.iterdir()) == []
    assert relay.registry.stat().st_ino == inode


def test_who_comes_while_the_agent_restarts_waits_for_it(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    port = relay.ports_of("laptop")[0]
    relay.stop_agent()
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        try:
            eventually(lambda: "opencode-relay-session" in relay.session_commands(), "its session waits")
        finally:
            relay.start_agent()
        assert client.ask(hello(port=port))["type"] == "registered"


def test_an_agent_that_is_stopped_takes_all_registrations_with_it(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        client.ask(hello(port=port))
        relay.stop_agent()
        try:
            assert list(relay.registry.iterdir()) == []
            client.wait()
        finally:
            relay.start_agent()
    relay.until_logged("instance laptop-api on port")
    relay.until_logged("the agent stops")


def test_nobody_but_sshds_sessions_can_speak_to_the_agent(relay: ProvisionedRelay) -> None:
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.shutdown(socket.SHUT_WR);"
        "print(s.recv(1) == b'')"
    )
    command = [sys.executable, "-c", program, str(relay.socket_path)]
    as_root = subprocess.run(command, capture_output=True, text=True, check=True)
    assert as_root.stdout == "True\n"  # hung up on: that is all that root is told
    python = ["runuser", "-u", relay.tunnel_user, "--", "/usr/bin/python3", *command[1:]]
    as_tunnel_user = subprocess.run(python, capture_output=True, text=True, check=True)
    assert as_tunnel_user.stdout == "True\n"
    relay.until_logged("refused a connection to the agent's socket: its header is wrong")
    assert not relay.logged("user 0")
    with unix_user("sh") as user:
        refused = subprocess.run(
            ["runuser", "-u", user, "--", "/usr/bin/python3", *command[1:]],
            capture_output=True,
            text=True,
            check=False,
        )
    assert "PermissionError" in refused.stderr


def test_a_session_that_finds_no_agent_says_who_must_look(relay: ProvisionedRelay) -> None:
    hidden = relay.socket_path.with_suffix(".hidden")
    relay.socket_path.rename(hidden)
    try:
        with RawClient(relay, "laptop") as client:
            assert client.first["code"] == "write-failed"
            assert "opencode-relay-agent.service" in client.first["message"]
            assert client.wait() == 1
    finally:
        hidden.rename(relay.socket_path)
