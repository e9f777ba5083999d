"""`attach`: an OpenCode 1 server that somebody else started is made reachable, and never ended."""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest

from client.fake_stranger import FakeStranger
from client.launched import Launched
from client.machine2 import guard_of, told
from opencode_connected.agents import sockets
from opencode_connected.agents.listening import OwnListener, SeenListener
from opencode_connected.agents.single import Single
from opencode_connected.loopback import LoopbackEndpoint
from support.opencodes.opencode import ServedOpenCode
from support.ports import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from client.launched import Machine
    from support.opencodes.opencode2 import Service2

PASSWORD = "correct horse"


def test_a_server_is_reachable_while_it_runs_and_its_end_is_said(machine: Machine, tmp_path: Path) -> None:
    with (
        ServedOpenCode(machine.home, tmp_path / "site") as served,
        Launched(machine, "attach", f"http://localhost:{served.port}/") as attached,
    ):
        eventually(machine.registrations, "the registration", within=60)
        (registration,) = machine.registrations().values()
        assert registration["localPort"] == served.port
        assert registration["cwd"] == str(tmp_path / "site")
        assert registration["name"].endswith("-site")
        document = told(machine)
        assert document["generation"] == 1
        assert [entry["path"] for entry in document["directories"]] == [str(tmp_path / "site")]
        with guard_of(machine) as client:
            assert client.get("/session").status_code == 200
            assert client.get("/config").status_code == 403
        served.stop()
        assert attached.ended() == 0
        assert f"nothing of yours listens on port {served.port} any more" in attached.screen
        assert machine.registrations() == {}


def test_a_server_with_a_password_is_asked_with_it_and_outlives_the_attachment(
    machine: Machine, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o600)
    with ServedOpenCode(machine.home, tmp_path / "site", password=PASSWORD) as served:
        without = machine.run("attach", str(served.port))
        assert (without.returncode, without.stderr.count("\n")) == (1, 1)
        assert "wants another password" in without.stderr
        with Launched(machine, "attach", str(served.port), "--password-file", str(secret)) as attached:
            eventually(machine.registrations, "the registration", within=60)
            with guard_of(machine, auth=("opencode", PASSWORD)) as client:
                assert client.get("/session").status_code == 200
            with guard_of(machine, auth=("opencode", "wrong")) as client:
                assert client.get("/session").status_code == 401
            attached.send("\x03")
            assert attached.ended() == -signal.SIGINT
        with served.client() as client:
            assert client.get("/global/health").status_code == 200
        secret.chmod(0o644)
        refused = machine.run("attach", str(served.port), "--password-file", str(secret))
        assert refused.returncode == 2
        assert f"chmod 600 {secret}" in refused.stderr


def test_what_cannot_be_attached_is_said_in_one_line(machine: Machine, service2: Service2) -> None:
    for target, code, said in (
        ("https://127.0.0.1:4096", 2, "only a server on this machine can"),
        ("http://192.0.2.1:4096", 2, "only a server on this machine can"),
        ("http://ann:x@127.0.0.1:4096", 2, "OPENCODE_SERVER_PASSWORD or --password-file"),
        ("80", 2, "1024 to 65535"),
        ("http://127.0.0.1:99999", 2, "1024 to 65535"),
        (str(free_port()), 3, "no OpenCode answers on port"),
        (str(service2.port), 3, "OpenCode 2's service needs no attaching: opencode-connected --headless"),
    ):
        refused = machine.run("attach", target)
        assert (refused.returncode, refused.stderr.count("\n")) == (code, 1), refused.stderr
        assert said in refused.stderr


# -- whose port it is ----------------------------------------------------------------------------------------------

only_root_is_two = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a program of another user")


def secret_file(tmp_path: Path) -> Path:
    secret = tmp_path / "password"
    secret.touch(0o600)
    secret.write_text(PASSWORD)
    return secret


@only_root_is_two
def test_another_users_program_is_asked_nothing_and_gets_no_password(machine: Machine, tmp_path: Path) -> None:
    with FakeStranger(free_port()) as stranger:
        refused = machine.run("attach", str(stranger.port), "--password-file", str(secret_file(tmp_path)))
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
        assert f"what listens on port {stranger.port} is no program of yours" in refused.stderr
        assert stranger.heard() == ""


@only_root_is_two
def test_a_port_that_another_user_takes_after_the_server_gets_no_password(machine: Machine, tmp_path: Path) -> None:
    secret = secret_file(tmp_path)
    with (
        ServedOpenCode(machine.home, tmp_path / "site", password=PASSWORD) as served,
        Launched(machine, "attach", str(served.port), "--password-file", str(secret)) as attached,
    ):
        eventually(machine.registrations, "the registration", within=60)
        with guard_of(machine, auth=("opencode", PASSWORD)) as client:
            assert client.get("/session").status_code == 200
            served.kill()
            with FakeStranger(served.port) as stranger:
                assert client.get("/session").status_code == 503
                assert attached.ended() == 0
                assert stranger.heard() == ""
        assert f"nothing of yours listens on port {served.port} any more" in attached.screen
        assert machine.registrations() == {}


def test_a_server_that_is_started_anew_on_its_port_is_found_again(machine: Machine, tmp_path: Path) -> None:
    with ServedOpenCode(machine.home, tmp_path / "site") as served:
        listener = OwnListener(served.port)
        assert listener.is_there()
        served.kill()
        assert not listener.is_there()
        served.start()
        eventually(listener.is_there, "the server that was started anew")


# -- who has a port ------------------------------------------------------------------------------------------------


def listens(address: str, port: int = 0, *, only_ipv6: bool = False) -> socket.socket:
    """Return a socket that listens at `address`, of IPv6 where it has a colon."""
    listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in address:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_ipv6))
    listening.bind((address, port))
    listening.listen()
    return listening


@pytest.fixture(params=["the kernel", "processes"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is asked: where the kernel tells nothing, as on macOS, processes are looked at."""
    if request.param == "processes":
        monkeypatch.setattr(sockets, "receivers", lambda port: None)


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"])
def test_a_program_that_gets_what_connects_to_the_port_is_known_as_ones_own(address: str) -> None:
    with listens(address) as listening:
        assert OwnListener(listening.getsockname()[1]).is_there()


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("address", ["127.0.0.2", "::1"])
def test_a_program_at_another_address_does_not_have_the_port(address: str) -> None:
    with listens(address) as listening:
        assert not OwnListener(listening.getsockname()[1]).is_there()


@pytest.mark.usefixtures("asked")
def test_a_program_that_lives_on_and_listens_no_more_is_not_there() -> None:
    with listens("127.0.0.1") as listening:
        listener = OwnListener(listening.getsockname()[1])
        seen = SeenListener(listener.port, os.getpid())
        assert listener.is_there()
        assert seen.is_there()
    assert not listener.is_there()
    assert not seen.is_there()


def test_what_listens_there_anew_is_not_what_was_seen() -> None:
    with listens("127.0.0.1") as listening:
        port = listening.getsockname()[1]
        seen = SeenListener(port, os.getpid())
        assert seen.is_there()
    with listens("127.0.0.1", port):
        assert OwnListener(port).is_there()
        assert not seen.is_there()


@pytest.mark.usefixtures("asked")
@only_root_is_two
def test_a_program_of_another_user_is_not_ones_own() -> None:
    with FakeStranger(free_port()) as stranger:
        assert not OwnListener(stranger.port).is_there()
        assert not SeenListener(stranger.port, os.getpid()).is_own()


@pytest.mark.usefixtures("asked")
async def test_what_comes_to_listen_after_a_launchers_own_server_is_not_asked() -> None:
    with listens("127.0.0.1") as listening:
        port = listening.getsockname()[1]
        server = Single(LoopbackEndpoint(port, ("opencode", PASSWORD)), frozenset())
        assert await server.target() is None
        server.answers("1.18.33", "/", "a", SeenListener(port, os.getpid()))
        server.answers("1.18.33", "/", "b")
        target = await server.target()
        assert target is not None
    assert await server.target() is None
    assert await server.moved(target) is None


@pytest.mark.usefixtures("asked")
@only_root_is_two
def test_a_program_that_leaves_ipv4_to_another_user_does_not_have_the_port() -> None:
    with listens("::", only_ipv6=True) as listening, FakeStranger(listening.getsockname()[1]) as stranger:
        assert not OwnListener(stranger.port).is_there()


def test_all_processes_are_looked_at_once_for_many_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def no_processes() -> list[psutil.Process]:
        looks.append(time.monotonic())
        return []

    monkeypatch.setattr(sockets, "receivers", lambda port: None)
    monkeypatch.setattr(psutil, "process_iter", no_processes)
    listener = OwnListener(free_port())
    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(lambda _: listener.is_there(), range(16)))
    assert len(looks) == 1
