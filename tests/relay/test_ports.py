"""Which ports are registered: a client's own, where its tunnel and nobody else listens, and OpenCode answers."""

from __future__ import annotations

import json
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from relay.provisioned import ProvisionedRelay
from relay.raw_client import RawClient, hello
from support.line.sshd import unix_user
from support.ports import is_open
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.opencodes.fake_health import FakeHealth


def test_a_port_of_another_client_is_refused_by_sshd_already(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    foreign = relay.ports_of("desktop")[0]
    with RawClient(relay, "laptop", forward=foreign, to=opencode.port) as client:
        assert client.ask(hello(port=foreign))["code"] == "bad-port"
        eventually(lambda: "remote port forwarding failed" in client.errors, "ssh says so")
        assert not is_open(foreign)


SQUATTER = (
    "import socket, sys; s = socket.create_server((sys.argv[1], int(sys.argv[2]))); print('listening', flush=True);"
    "c, _ = s.accept(); c.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n'); sys.stdin.read()"
)


@contextmanager
def squatter(user: str, port: int) -> Iterator[None]:
    """Another user of the relay on a client's port; it would even pass for OpenCode."""
    command = ["runuser", "-u", user, "--", "/usr/bin/python3", "-c", SQUATTER, "127.0.0.1", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        try:
            yield
        finally:
            process.kill()


def test_a_port_that_another_user_of_the_relay_sits_on_is_neither_offered_nor_registered(
    relay: ProvisionedRelay,
) -> None:
    port = relay.ports_of("laptop")[2]
    with unix_user("sh") as user, squatter(user, port), RawClient(relay, "laptop") as client:
        assert port not in client.first["ports"]
        assert client.ask(hello(port=port))["code"] == "bad-port"
        assert client.ask({"type": "probe", "port": port})["code"] == "bad-port"
    relay.until_registered()


def test_a_registration_goes_when_its_port_comes_to_be_another_users(
    relay: ProvisionedRelay, opencode: FakeHealth, tmp_path: Path
) -> None:
    port = relay.ports_of("laptop")[2]
    control = ["-o", "ControlMaster=yes", "-o", f"ControlPath={tmp_path / 'control'}"]
    with RawClient(relay, "laptop", *control, forward=port, to=opencode.port) as client:
        assert client.ask(hello(port=port))["type"] == "registered"
        cancel = ["ssh", "-S", str(tmp_path / "control"), "-O", "cancel"]
        subprocess.run([*cancel, "-R", f"127.0.0.1:{port}:127.0.0.1:{opencode.port}", "relay"], check=True)
        with unix_user("sh") as user, squatter(user, port):
            relay.until_registered()
            client.wait()
    relay.until_logged(f"port {port} is not its tunnel's any more")


def test_a_port_that_listens_beyond_loopback_is_not_registered(tmp_path: Path, opencode: FakeHealth) -> None:
    # Whose sshd_config says so is another question: the relay must not register what the world can reach.
    with ProvisionedRelay(tmp_path, sshd={"GatewayPorts": "yes"}) as relay:
        relay.enrol("laptop")
        port = relay.ports_of("laptop")[0]
        with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
            assert client.ask(hello(port=port))["code"] == "exposed"
        assert relay.registrations() == {}


def test_nothing_is_registered_unless_opencode_answers_through_the_tunnel(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        opencode.status = 404
        assert client.ask(hello(port=port))["code"] == "not-carrying"
        opencode.status = 401  # it has a password: alive
        assert client.ask(hello(port=port))["health"] == "ok"


@pytest.mark.parametrize(
    "status_line",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1\r\n", b"x" * 100_000],
    ids=["silence", "sshd", "no-status", "no-end"],
)
def test_what_is_no_opencode_is_not_registered(relay: ProvisionedRelay, status_line: bytes) -> None:
    port = relay.ports_of("laptop")[0]
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        RawClient(relay, "laptop", forward=port, to=server.getsockname()[1]) as client,
    ):
        assert client.first["type"] == "ready"
        client.send(json.dumps(hello(port=port)).encode())
        connection, _ = server.accept()
        with connection:
            connection.sendall(status_line)
        assert client.receive()["code"] == "not-carrying"
