"""What the key of an enrolled client can do through a real sshd, and what it cannot."""

from __future__ import annotations

import json
import pwd
import signal
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from opencode_mcp.registration import parse_registration
from relay.provisioned import ProvisionedRelay
from relay.raw_client import ID, OTHER_ID, RawClient, hello
from support.ports import is_open
from support.sshd import unix_user
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.fake_health import FakeHealth


def test_an_enrolled_client_registers_under_its_name_and_the_gateway_reads_it(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        assert client.first == {
            "type": "ready",
            "v": 1,
            "agent": "opencode-relay-agent",
            "client": "laptop",
            "peer": "127.0.0.1",
            "ports": list(relay.ports_of("laptop")[1:]),
        }
        assert client.ask(hello(port=port, name="api")) == {
            "type": "registered",
            "name": "laptop-api",
            "health": "ok",
        }
        path = relay.registry / "laptop-api.json"
        registration = parse_registration(path.read_bytes(), path.name, relay.ports)
        assert (registration.client, registration.port, registration.cwd) == ("laptop", port, "/home/ann/api")
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o640
        assert status.st_uid == pwd.getpwnam(relay.agent_user).pw_uid
        assert status.st_gid == pwd.getpwnam(relay.gateway_user).pw_gid
        assert client.ask({"type": "ping", "n": 7}) == {"type": "pong", "n": 7, "health": "ok"}
        opencode.status = 500
        assert client.ask({"type": "ping", "n": 8})["health"] == "failed"
    relay.until_registered()
    eventually(lambda: not is_open(port), "the port is free")
    assert relay.logged(f"client laptop registered laptop-api on port {port}")
    eventually(lambda: relay.logged(f"instance laptop-api on port {port} is gone: its connection ended"))
    assert not relay.logged("/home/ann")


def test_a_goodbye_leaves_a_note_and_then_nothing(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        client.ask(hello(port=port))
        client.send(b'{"type":"bye"}')
        eventually(lambda: "closedAt" in relay.registrations().get("laptop-api", {}), "a goodbye note")
        relay.until_registered()
        assert client.wait() == 1, client.errors  # its session ended by itself


def test_the_launchers_first_line_and_other_noise_are_ignored(relay: ProvisionedRelay) -> None:
    with RawClient(relay, "laptop") as client:
        for noise in (
            b"dir=/tmp; echo \\n" * 700,
            b"",
            b"\xff\xfe",
            b"[1]",
            b'{"type":"dance"}',
            b'{"type":',
            b"null",
        ):
            client.send(noise)
        client.send(b"[" * 16_000)
        client.send(b'{"type":"ping","n":' + b"9" * 5_000 + b"}")
        assert client.ask({"type": "ping", "n": 1}) == {"type": "pong", "n": 1, "health": "unverified"}


def test_a_client_learns_of_its_own_registrations_and_ports_only(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    laptops, desktops = relay.ports_of("laptop"), relay.ports_of("desktop")
    with (
        RawClient(relay, "laptop", forward=laptops[0], to=opencode.port) as laptop,
        RawClient(relay, "desktop", forward=desktops[0], to=opencode.port) as desktop,
    ):
        laptop.ask(hello(port=laptops[0]))
        desktop.ask(hello(port=desktops[0], name="desktop-site"))
        answer = desktop.ask({"type": "query"})
        assert (answer["type"], answer["file"]["name"]) == ("registration", "desktop-site")
        assert desktop.receive() == {"type": "end"}
        assert desktop.ask({"type": "probe", "port": desktops[0]}) == {
            "type": "probed",
            "port": desktops[0],
            "health": "ok",
        }
        for other in (laptops[0], relay.sshd.port, 22, -1, 10**30, True, None, "10001", 1.5, [desktops[0]]):
            assert desktop.ask({"type": "probe", "port": other})["code"] == "bad-port"
            assert desktop.ask(hello(port=desktops[1], name="x") | {"file": {"port": other}})["code"] == "bad-port"


def test_a_port_of_another_client_is_refused_by_sshd_already(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    foreign = relay.ports_of("desktop")[0]
    with RawClient(relay, "laptop", forward=foreign, to=opencode.port) as client:
        assert client.ask(hello(port=foreign))["code"] == "bad-port"
        assert "remote port forwarding failed" in client.errors
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
    assert relay.logged(f"port {port} is not its tunnel's any more")


def test_a_port_that_listens_beyond_loopback_is_not_registered(tmp_path: Path, opencode: FakeHealth) -> None:
    # Whose sshd_config says so is another question: the relay must not register what the world can reach.
    with ProvisionedRelay(tmp_path, gateway_ports="yes") as relay:
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
    with socket.create_server(("127.0.0.1", 0)) as server:
        with RawClient(relay, "laptop", forward=port, to=server.getsockname()[1]) as client:
            assert client.first["type"] == "ready"
            client.send(json.dumps(hello(port=port)).encode())
            connection, _ = server.accept()
            with connection:
                connection.sendall(status_line)
            answer = client.receive()
    assert answer["code"] == "not-carrying"


TRAVERSALS = [
    "../escaped",
    "/etc/passwd",
    "..",
    "a/../../b",
    "laptop/../../b",
    "laptop-\x00",
    "laptop-\n",
    "laptop\\x",
]


@pytest.mark.parametrize(
    "name", [*TRAVERSALS, "", "laptop-" + "x" * 60, "x" * 60, "laptop-\u202etxt", 7, None, ["x"]]
)
def test_a_name_that_is_no_name_is_refused(relay: ProvisionedRelay, opencode: FakeHealth, name: object) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        answer = client.ask(hello(port=port) | {"file": {**hello(port=port)["file"], "name": name}})
        assert answer["code"] == "bad-name"
        assert relay.registrations() == {}


@pytest.mark.parametrize(
    "change",
    [
        {"hostname": ""},
        {"hostname": 1},
        {"cwd": "x" * 5000},
        {"localPort": 80},
        {"localPort": "4096"},
        {"connectedAt": "soon"},
        {"cwd": "\ud800"},
    ],
    ids=lambda change: ascii(change)[:40],
)
def test_a_field_that_is_not_allowed_is_refused(
    relay: ProvisionedRelay, opencode: FakeHealth, change: dict[str, object]
) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        message = hello(port=port)
        assert client.ask(message | {"file": message["file"] | change})["code"] == "bad-hello"


@pytest.mark.parametrize("change", [{"v": 2}, {"v": None}, {"id": "x"}, {"id": "F" * 32}, {"id": 5}, {"file": []}])
def test_a_hello_of_another_shape_is_refused(relay: ProvisionedRelay, change: dict[str, object]) -> None:
    with RawClient(relay, "laptop") as client:
        assert client.ask(hello(port=1024) | change)["code"] == "bad-hello"


def test_what_a_client_claims_about_itself_is_not_what_is_written(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    port = relay.ports_of("laptop")[0]
    claims = {"client": "desktop", "closedAt": "2026-11-24T16:00:00Z", "token": "secret", "name": "desktop-site"}
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        message = hello(port=port)
        message["file"] |= claims
        assert client.ask(message)["name"] == "laptop-desktop-site"
        assert relay.registrations().keys() == {"laptop-desktop-site"}
        written = relay.registrations()["laptop-desktop-site"]
        assert written["client"] == "laptop"
        assert written.keys() == {"name", "hostname", "port", "localPort", "cwd", "connectedAt", "client"}


def test_a_reconnect_takes_over_and_ends_the_older_connection(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    first, second = relay.ports_of("laptop")[:2]
    with RawClient(relay, "laptop", forward=first, to=opencode.port) as old:
        old.ask(hello(port=first, name="laptop-old"))
        with RawClient(relay, "laptop", forward=second, to=opencode.port) as new:
            assert new.ask(hello(port=second))["type"] == "registered"
            old.wait()
            relay.until_registered("laptop-api")
            assert relay.registrations()["laptop-api"]["port"] == second
            eventually(lambda: not is_open(first), "the older one's port is free")
            assert new.ask({"type": "ping", "n": 1})["health"] == "ok"


def test_another_instance_gets_neither_the_name_nor_the_port_of_one_that_lives(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    first, second = relay.ports_of("laptop")[:2]
    with (
        RawClient(relay, "laptop", forward=first, to=opencode.port) as old,
        RawClient(relay, "laptop", forward=second, to=opencode.port) as new,
    ):
        old.ask(hello(port=first))
        taken = new.ask(hello(port=second, instance_id=OTHER_ID))
        assert (taken["code"], taken["holder"]) == ("name-taken", "ann.example")
        assert new.ask(hello(port=first, name="laptop-2", instance_id=OTHER_ID))["code"] == "bad-port"
        assert new.ask(hello(port=second, name="laptop-2", instance_id=OTHER_ID))["type"] == "registered"
        assert old.ask({"type": "ping", "n": 1})["health"] == "ok"
        relay.until_registered("laptop-2", "laptop-api")


def test_the_id_of_an_instance_is_worth_nothing_to_another_client(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    mine, theirs = relay.ports_of("laptop")[0], relay.ports_of("desktop")[0]
    with (
        RawClient(relay, "laptop", forward=mine, to=opencode.port) as victim,
        RawClient(relay, "desktop", forward=theirs, to=opencode.port) as thief,
    ):
        victim.ask(hello(port=mine, instance_id=ID))
        assert thief.ask(hello(port=theirs, instance_id=ID))["name"] == "desktop-laptop-api"
        assert victim.ask({"type": "ping", "n": 1})["health"] == "ok"
        relay.until_registered("laptop-api", "desktop-laptop-api")


def test_one_session_has_one_registration(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        for number in range(30):
            assert client.ask(hello(port=port, name=f"laptop-{number}"))["type"] == "registered"
            assert relay.registrations().keys() == {f"laptop-{number}"}


def test_a_registration_that_somebody_removed_or_replaced_is_written_again(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    port = relay.ports_of("laptop")[0]
    with RawClient(relay, "laptop", forward=port, to=opencode.port) as client:
        client.ask(hello(port=port))
        path = relay.registry / "laptop-api.json"
        written = path.read_bytes()
        for change in (path.unlink, lambda: path.write_text("{}"), lambda: replace_by_link(path)):
            change()
            assert client.ask({"type": "ping", "n": 1})["type"] == "pong"
            assert not path.is_symlink()
            assert path.read_bytes() == written


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def test_a_client_that_has_all_its_connections_open_is_told_so(relay: ProvisionedRelay) -> None:
    limit = 2 * len(relay.ports_of("laptop"))
    with ExitStack() as stack:
        for _ in range(limit):
            assert stack.enter_context(RawClient(relay, "laptop")).first["type"] == "ready"
        with RawClient(relay, "laptop") as too_many:
            assert too_many.first["code"] == "not-allowed"
            assert str(limit) in too_many.first["message"]
            too_many.wait()
        with RawClient(relay, "desktop") as other:
            assert other.first["type"] == "ready"


def test_a_hello_of_100_mb_ends_its_session_and_costs_the_agent_no_memory(relay: ProvisionedRelay) -> None:
    agent = psutil.Process(relay.agent.pid)
    before = agent.memory_info().rss
    with RawClient(relay, "laptop") as client:
        with pytest.raises(BrokenPipeError):
            client.send(b'{"type":"hello","v":1,"id":"' + b"0" * 100_000_000)
        client.wait()
    eventually(lambda: relay.logged("it sent a line without end"))
    assert agent.memory_info().rss - before < 5_000_000


def test_a_flood_of_messages_waits_in_its_own_connection(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    port = relay.ports_of("desktop")[0]
    with (
        RawClient(relay, "laptop") as flood,
        RawClient(relay, "desktop", forward=port, to=opencode.port) as other,
    ):
        flood.send(b'{"type":"ping","n":1}\n' * 2_000)
        assert other.ask(hello(port=port, name="desktop-site"))["type"] == "registered"
        for number in range(5):
            assert other.ask({"type": "ping", "n": number})["n"] == number
        answered = 0
        while answered < 100:  # the burst that is allowed
            flood.receive()
            answered += 1
        assert flood.unread < 1_000, "the agent answers as fast as it is asked"


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
            assert not is_open(port)
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
    assert relay.logged("instance laptop-api on port")
    assert relay.logged("the agent stops")


def test_nobody_but_sshds_sessions_can_speak_to_the_agent(relay: ProvisionedRelay) -> None:
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.shutdown(socket.SHUT_WR);"
        "print(s.recv(1) == b'')"
    )
    command = [sys.executable, "-c", program, str(relay.socket_path)]
    as_root = subprocess.run(command, capture_output=True, text=True, check=True)
    assert as_root.stdout == "True\n"  # hung up on
    assert relay.logged("user 0 is not the tunnel user")
    python = ["runuser", "-u", relay.tunnel_user, "--", "/usr/bin/python3", *command[1:]]
    as_tunnel_user = subprocess.run(python, capture_output=True, text=True, check=True)
    assert as_tunnel_user.stdout == "True\n"
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
