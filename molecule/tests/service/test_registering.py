"""What a client may register, and what not, by a stolen key that speaks the protocol with a real tunnel behind it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from support.hosts.hosts import RunningProgram
from support.hosts.scenario import hello
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.hosts.hosts import ShellSession
    from support.hosts.scenario import Attacker, Machine, ScenarioRelay, SeenRegistration

_SQUAT = """
import http.server, sys
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy)
print("listening", flush=True)
server.serve_forever()
"""


@pytest.fixture
def port(relay: ScenarioRelay) -> int:
    """A port of the guest's block."""
    return relay.block("guest")[0]


@pytest.fixture
def session(guest: Attacker, guest_port: int, port: int) -> Iterator[ShellSession]:
    """A session of the guest's, whose tunnel on `port` leads to a real OpenCode."""
    with guest.session(forward=port, local_port=guest_port) as session:
        yield session


def test_the_relay_says_which_ports_are_the_clients_and_free(
    relay: ScenarioRelay, session: ShellSession, guest: Attacker, port: int
) -> None:
    ready = session.hear("ready")
    assert (ready["v"], ready["client"]) == (1, "guest")
    with guest.session() as second:
        assert second.hear("ready")["ports"] == [free for free in relay.block("guest") if free != port]


def test_what_it_registers_is_registered_and_goes_with_its_session(
    relay: ScenarioRelay, session: ShellSession, port: int
) -> None:
    session.say(**hello("guest-api", port))
    registered = session.hear("registered")
    assert (registered["name"], registered["health"]) == ("guest-api", "ok")
    assert relay.registrations()["guest-api"].port == port
    session.signal("KILL")
    eventually(lambda: "guest-api" not in relay.registrations(), "the registration is gone", within=15)
    eventually(lambda: not relay.listens(port), "nothing listens any more", within=60)


@pytest.mark.parametrize("name", ["api", "ann-laptop-api", "Studio_1", "GUEST-api", "gues"])
def test_a_name_that_is_not_its_own_gets_its_own_in_front(session: ShellSession, port: int, name: str) -> None:
    session.say(**hello(name, port))
    assert session.hear("registered")["name"] == f"guest-{name}"


TRICKS = [
    "../../../etc/cron.d/x",
    "guest/../ann-laptop-api",
    "/etc/passwd",
    ".guest",
    "..",
    "guest\\..\\x",
    "guest\u0000",
    "guest\nx",
    " guest",
    "guest ",
    "guest\u202egnp.exe",
    "guest\ud800",
    "",
    "g" * 65,
    "guest-" + "é" * 120,
    None,
    7,
    ["guest"],
    {"guest": 1},
]


def test_names_that_play_tricks_are_refused_and_leave_nothing(
    relay: ScenarioRelay, session: ShellSession, port: int
) -> None:
    before = _files(relay)
    session.hear("ready")
    for trick in TRICKS:
        session.say(**hello(trick, port))
        error = session.hear("error")
        assert error["code"] == "bad-name", trick
    assert _files(relay) == before


def _files(relay: ScenarioRelay) -> str:
    """Return what lies in the registry directory, and beside and above it."""
    return relay.output("find", relay.registry_dir, f"{relay.registry_dir}/..", "/etc/cron.d", "-maxdepth", "1")


def test_another_clients_port_is_refused(
    relay: ScenarioRelay, session: ShellSession, fleet: dict[str, SeenRegistration]
) -> None:
    session.hear("ready")
    for victim in fleet.values():
        session.say(**hello("guest-thief", victim.port))
        assert session.hear("error")["code"] == "bad-port"
        session.say(type="probe", port=victim.port)
        assert session.hear("error")["code"] == "bad-port"
    assert "guest-thief" not in relay.registrations()


@pytest.mark.parametrize("claimed", [0, -1, 22, 2222, 65536, 2**40, "21000", 21000.5, True, None, [21000]])
def test_a_port_that_is_none_of_its_block_is_refused(session: ShellSession, claimed: object) -> None:
    session.hear("ready")
    session.say(**hello("guest-x", claimed))
    assert session.hear("error")["code"] == "bad-port"


def test_another_clients_file_is_neither_shown_nor_written(
    relay: ScenarioRelay, session: ShellSession, port: int, fleet: dict[str, SeenRegistration]
) -> None:
    session.hear("ready")
    session.say(type="query")
    session.hear("end")
    assert not [line for line in session.lines if '"registration"' in line]
    victim = next(iter(fleet.values()))
    # Same name, same instance: a takeover, if it were the same client.
    session.say(**hello(victim.name, port))
    assert session.hear("registered")["name"] == f"guest-{victim.name}"[:64]
    assert relay.registrations()[victim.name] == victim


def test_fields_that_are_hostile_are_refused_or_stored_harmlessly(
    relay: ScenarioRelay, session: ShellSession, port: int
) -> None:
    session.hear("ready")
    for fields in ({"cwd": "x" * 20_000}, {"hostname": ["a"]}, {"connectedAt": "now"}, {"localPort": "ssh"}):
        session.say(**hello("guest-x", port, **fields))
        if "cwd" not in fields:
            assert session.hear("error")["code"] == "bad-hello"
    session.say(**hello("guest-x", port, client="ann-laptop", closedAt="2026-01-01T00:00:00Z", __proto__={"a": 1}))
    session.hear("registered")
    stored = json.loads(relay.output("cat", f"{relay.registry_dir}/guest-x.json"))
    assert stored["client"] == "guest"
    assert stored.keys() <= {"name", "hostname", "port", "localPort", "cwd", "connectedAt", "client"}


def test_a_squatter_on_a_clients_port_is_not_registered(
    relay: ScenarioRelay, guest: Attacker, guest_port: int, port: int
) -> None:
    with RunningProgram(relay, "python3", "-c", _SQUAT, str(port), user="ordinary") as squatter:
        squatter.wait_for(lambda line: "listening" in line, "the squatter listens")
        with guest.session(forward=port, local_port=guest_port) as session:
            assert port not in session.hear("ready")["ports"]
            session.say(**hello("guest-squatted", port))
            error = session.hear("error")
            assert (error["code"], "no tunnel listens" in error["message"]) == ("bad-port", True)
    assert "guest-squatted" not in relay.registrations()


@pytest.fixture
def open_gateway(relay: ScenarioRelay) -> Iterator[None]:
    """An sshd that somebody has told to put tunnels on every address."""
    drop_in = "/etc/ssh/sshd_config.d/00-gateway.conf"
    relay.run("tee", drop_in, stdin=f"Match User {relay.tunnel_user}\n    GatewayPorts yes\n")
    relay.run("systemctl", "restart", "ssh.service")
    yield
    relay.run("rm", drop_in)
    relay.run("systemctl", "restart", "ssh.service")


@pytest.mark.usefixtures("open_gateway")
def test_a_tunnel_that_listens_beyond_loopback_is_not_registered(session: ShellSession, port: int) -> None:
    session.hear("ready")
    session.say(**hello("guest-exposed", port))
    assert session.hear("error")["code"] == "exposed"


def test_only_the_tunnels_account_is_heard_at_the_agents_socket(relay: ScenarioRelay) -> None:
    # The agent closes as soon as it knows whose connection it is: before, while or after it is told something.
    program = """
import socket
agent = socket.socket(socket.AF_UNIX)
agent.settimeout(60)
try:
    agent.connect("/run/opencode-relay.sock")
except PermissionError:
    raise SystemExit("no entry")
try:
    socket.send_fds(agent, [b"guest\\0SHA256:x\\0"], [0, 1])
    answer = agent.recv(1)
except (BrokenPipeError, ConnectionResetError):
    answer = b""
raise SystemExit("answered" if answer else "closed")
"""
    for user in ("ordinary", relay.gateway_user, relay.agent_user):
        assert relay.python(program, user=user).stderr.strip() == "no entry"
    # Root is told that much: `opencode-relay doctor` asks so.
    assert relay.python(program).stderr.strip() == "closed"


def test_a_tunnel_that_leads_to_no_opencode_is_not_registered(
    relay: ScenarioRelay, guest: Attacker, port: int
) -> None:
    with guest.session(forward=port, local_port=9) as session:
        session.say(**hello("guest-dead", port))
        assert session.hear("error")["code"] == "not-carrying"
    assert "guest-dead" not in relay.registrations()


def test_the_same_instance_takes_over_from_its_older_session(
    relay: ScenarioRelay, guest: Attacker, session: ShellSession, guest_port: int, port: int
) -> None:
    session.say(**hello("guest-api", port, instance_id="a" * 32))
    session.hear("registered")
    other_port = relay.block("guest")[1]
    with guest.session(forward=other_port, local_port=guest_port) as newer:
        newer.say(**hello("guest-api", other_port, instance_id="b" * 32))
        assert newer.hear("error")["code"] == "name-taken"
        newer.say(**hello("guest-api", other_port, instance_id="a" * 32))
        newer.hear("registered")
        assert relay.registrations()["guest-api"].port == other_port
        session.ended()


def test_a_client_has_no_more_registrations_than_ports(
    relay: ScenarioRelay, guest: Attacker, guest_port: int
) -> None:
    block = relay.block("guest")
    with ExitStack() as stack:
        sessions = [stack.enter_context(guest.session(forward=port, local_port=guest_port)) for port in block]
        for session, port in zip(sessions, block, strict=True):
            session.say(**hello(f"guest-{port}", port, instance_id=f"{port:032x}"))
            session.hear("registered")
        # A second registration of a session takes the place of its first, and of no other's.
        sessions[0].say(**hello("guest-more", block[0], instance_id=f"{block[0]:032x}"))
        sessions[0].hear("registered")
        sessions[0].say(**hello("guest-more-yet", block[1], instance_id="e" * 32))
        assert sessions[0].hear("error")["code"] == "bad-port"
        assert len(relay.registered("guest")) == relay.block_size
        with guest.session() as one_more:
            assert one_more.hear("ready")["ports"] == []


@pytest.mark.usefixtures("fleet")
def test_a_flood_of_registrations_is_slowed_down_and_hurts_nobody_else(
    relay: ScenarioRelay, session: ShellSession, port: int, laptop: Machine
) -> None:
    agent = relay.agent_pid()
    session.hear("ready")
    flood = "".join(json.dumps(hello(f"guest-{number}", port)) + "\n" for number in range(3000))
    session.write(flood)
    session.hear("registered")
    name = next(iter(relay.registered(laptop.client)))
    (answer,) = relay.call_tools(("send", {"instance": name, "message": "in the flood", "session": "new"}))
    assert "echo: in the flood" in answer["text"]
    # While one name takes the place of another, a look at the directory may meet both or neither.
    eventually(lambda: len(relay.registered("guest")) == 1, "one registration")
    answered = sum('"registered"' in line for line in session.lines)
    assert answered < 1000
    assert relay.agent_pid() == agent


def test_connections_of_one_client_are_limited(relay: ScenarioRelay, guest: Attacker) -> None:
    with ExitStack() as stack:
        for _ in range(2 * relay.block_size):
            stack.enter_context(guest.session()).hear("ready")
        with guest.session() as one_more:
            assert one_more.hear("error")["code"] == "unavailable"


@pytest.mark.usefixtures("fleet")
def test_a_hello_of_100_mb_ends_its_session_and_is_not_kept(
    relay: ScenarioRelay, guest: Attacker, laptop: Machine
) -> None:
    agent = relay.agent_pid()
    before = _peak_memory(relay, agent)
    others = relay.registered(laptop.client)
    words = " ".join(f"'{word}'" for word in guest.ssh_command("-T"))
    megabytes = "head -c 104857600 /dev/zero | tr '\\0' a"
    done = guest.host.run("sh", "-c", f'(printf \'{{"type":"hello","x":"\'; {megabytes}) | {words}', check=False)
    assert done.returncode != 0
    relay.logs("a line without end")
    assert relay.agent_pid() == agent
    assert _peak_memory(relay, agent) - before < 20 * 1024
    assert relay.registered(laptop.client) == others


def _peak_memory(relay: ScenarioRelay, pid: int) -> int:
    """Return the most memory that a process has had, in KiB."""
    return int(relay.output("sed", "-n", r"s/^VmHWM:\s*\([0-9]*\).*/\1/p", f"/proc/{pid}/status"))


def test_the_journal_says_who_came_what_it_registered_and_why_it_went(
    relay: ScenarioRelay, guest: Attacker, session: ShellSession, port: int
) -> None:
    session.say(**hello("guest-logged", port, cwd="/secret/directory"))
    session.hear("registered")
    session.say(type="bye")
    session.ended()

    def logged() -> bool:
        lines = relay.journal()
        assert f"client guest connected from {guest.host.address()} port" in lines
        assert f"client guest registered guest-logged on port {port}" in lines
        assert f", instance guest-logged on port {port} is gone: it was quit" in lines
        assert "/secret/directory" not in lines
        return True

    eventually(logged, "the journal tells it", within=60)
