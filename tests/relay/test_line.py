"""What an enrolled client is told and can ask for, through a real sshd."""

from __future__ import annotations

import pwd
import socket
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from opencode_common.registration import parse_registration
from opencode_relay.traffic import ConnectionEnds
from relay.raw_client import BEAT, RawClient, hello
from support.ports import is_open
from support.waiting import eventually

if TYPE_CHECKING:
    from relay.provisioned import ProvisionedRelay
    from support.opencodes.fake_health import FakeHealth


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
    relay.until_logged(f"client laptop registered laptop-api on port {port}")
    relay.until_logged(f"instance laptop-api on port {port} is gone: its connection ended")
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


def test_a_client_is_given_signs_of_life_that_are_no_answers(relay: ProvisionedRelay) -> None:
    with RawClient(relay, "laptop") as client:
        assert client.first["type"] == "ready"
        assert client.receive_any() == BEAT
        assert client.receive_any() == BEAT
        assert client.ask({"type": "ping", "n": 1})["n"] == 1


def test_what_the_kernel_received_of_a_client_is_known_by_the_two_ends_of_its_connection() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        ends = ConnectionEnds(*client.getsockname(), *server.getsockname())
        client.sendall(b"x" * 3000)
        assert len(accepted.recv(3000, socket.MSG_WAITALL)) == 3000
        assert ends.bytes_received() == 3000
        assert replace(ends, client="127.0.0.2").bytes_received() in (None, 0)
        assert replace(ends, client="fe80::1%eth0").bytes_received() is None
        assert replace(ends, relay_port=99_999).bytes_received() is None


def test_so_it_is_over_ipv6_and_over_ipv4_to_a_socket_of_both() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        for address in ("::1", "127.0.0.1"):
            with socket.create_connection((address, port)) as client, server.accept()[0] as accepted:
                client.sendall(b"x" * 2000)
                assert len(accepted.recv(2000, socket.MSG_WAITALL)) == 2000
                assert ConnectionEnds(address, client.getsockname()[1], address, port).bytes_received() == 2000
