"""What the key of a client cannot do, tried with real ssh from another host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.hosts.hosts import RunningProgram
from support.hosts.scenario import hello
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.hosts.scenario import Attacker, Machine, ScenarioRelay

REFUSED = "remote port forwarding failed"
_CONNECT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10) as connection:
    try:
        for question in sys.argv[2:]:
            connection.sendall(bytes.fromhex(question))
            answer = connection.recv(100)
    except ConnectionError:  # it is closed, with what was sent unread
        answer = b""
    print(answer)
"""


def test_a_port_of_its_own_block_is_granted(relay: ScenarioRelay, guest: Attacker) -> None:
    port = relay.block("guest")[-1]
    with guest.session("-o", "ExitOnForwardFailure=yes", forward=port, local_port=9) as session:
        assert session.hear("ready")["client"] == "guest"
        assert relay.output("ss", "-Hltn", f"sport = :{port}").split()[3] == f"127.0.0.1:{port}"


@pytest.mark.parametrize("command", ["id", "cat /etc/passwd", "", "exec /bin/sh -i"])
def test_no_command_and_no_shell_runs_but_the_forced_command(guest: Attacker, command: str) -> None:
    with guest.session(to=command) as session:
        session.hear("ready")
        session.say(type="bye")
        session.ended()
        assert [line for line in session.lines if not line.startswith("{")] == []


def test_what_is_typed_at_the_forced_command_is_not_run(guest: Attacker) -> None:
    with guest.session() as session:
        session.hear("ready")
        session.write("id\n$(id)\n`id`\n; id\n")
        session.say(type="query")
        session.hear("end")
        assert "uid=" not in "".join(session.lines)


def test_no_terminal_is_given(guest: Attacker, ordinary: Attacker) -> None:
    assert "PTY allocation request failed" in guest.ssh("-tt").stderr
    assert "PTY allocation request failed" not in ordinary.ssh("-tt").stderr


@pytest.mark.parametrize("program", ["sftp", "scp", "scp -O"])
def test_no_file_is_copied(guest: Attacker, ordinary: Attacker, program: str) -> None:
    def fetch(who: Attacker) -> int:
        words = who.ssh_command(to="")
        ssh, target = " ".join(words[:-1]), words[-1]
        wrapper = f'printf "#!/bin/sh\\nexec {ssh} \\"\\$@\\"\\n" >/root/keys/ssh; chmod +x /root/keys/ssh'
        who.host.run("sh", "-c", f"{wrapper}; rm -f /root/keys/fetched")
        who.host.run(
            *program.split(), "-S", "/root/keys/ssh", f"{target}:/etc/hostname", "/root/keys/fetched", check=False
        )
        return who.host.run("test", "-s", "/root/keys/fetched", check=False).returncode

    assert fetch(ordinary) == 0
    assert fetch(guest) != 0


def _listen_addresses(relay: ScenarioRelay) -> dict[str, str]:
    own, other = relay.block("guest")[0], relay.block("Studio_1")[-1]
    first, last = relay.port_range.split("-")
    return {
        "another client's port": f"127.0.0.1:{other}",
        "a port that nobody has": f"127.0.0.1:{int(last)}",
        "a port before the range": f"127.0.0.1:{int(first) - 1}",
        "a port far away": "127.0.0.1:8099",
        "any port": "127.0.0.1:0",
        "a wildcard": f"*:{own}",
        "no address": f"{own}",
        "an empty address": f":{own}",
        "every IPv4 address": f"0.0.0.0:{own}",
        "every IPv6 address": f"[::]:{own}",
        "IPv6 loopback": f"[::1]:{own}",
        "localhost": f"localhost:{own}",
        "another loopback address": f"127.0.0.2:{own}",
        "its outer address": f"{relay.address()}:{own}",
        "a unix socket": "/tmp/guest.sock",
        "the agent's socket": "/run/opencode-relay.sock",
    }


@pytest.mark.parametrize(
    "what",
    [
        "another client's port",
        "a port that nobody has",
        "a port before the range",
        "a port far away",
        "any port",
        "a wildcard",
        "no address",
        "an empty address",
        "every IPv4 address",
        "every IPv6 address",
        "IPv6 loopback",
        "localhost",
        "another loopback address",
        "its outer address",
        "a unix socket",
        "the agent's socket",
    ],
)
def test_it_listens_nowhere_but_on_its_own_ports_of_loopback(
    relay: ScenarioRelay, guest: Attacker, what: str
) -> None:
    listen = _listen_addresses(relay)[what]
    done = guest.ssh("-o", "ExitOnForwardFailure=yes", "-R", f"{listen}:127.0.0.1:9")
    assert done.returncode == 255
    assert REFUSED in done.stderr
    assert not relay.succeeds("test", "-e", "/tmp/guest.sock")


@pytest.mark.parametrize(
    "target", ["127.0.0.1:2222", "127.0.0.1:22", "169.254.169.254:80", "a live tunnel", "the client itself"]
)
@pytest.mark.usefixtures("fleet")
def test_it_connects_to_nothing_through_the_relay(relay: ScenarioRelay, guest: Attacker, target: str) -> None:
    if target == "a live tunnel":
        target = f"127.0.0.1:{next(iter(relay.registrations().values())).port}"
    if target == "the client itself":
        target = f"{guest.host.address()}:22"
    done = guest.ssh("-W", target, to="")
    assert done.returncode != 0
    assert "administratively prohibited" in done.stderr
    assert "SSH-2.0" not in done.stdout


@pytest.mark.parametrize("to", ["127.0.0.1:{port}", "/run/opencode-relay.sock", "/run/systemd/private"])
def test_a_local_forward_leads_nowhere(relay: ScenarioRelay, guest: Attacker, ordinary: Attacker, to: str) -> None:
    def answer(who: Attacker, to: str) -> str:
        with RunningProgram(who.host, *who.ssh_command("-L", f"127.0.0.1:7001:{to}", to="cat")) as ssh:
            eventually(lambda: "forwarding" in ssh.errors or ssh.lines or "Authenticated" in ssh.errors, "ssh is in")
            return eventually(lambda: who.host.python(_CONNECT, "7001", "0a").stdout, "the forward answers")

    assert answer(guest, to.format(port=relay.ssh_port)).strip() == "b''"
    if "port" in to:
        assert "SSH-2.0" in answer(ordinary, to.format(port=relay.ssh_port))


def test_a_dynamic_forward_leads_nowhere(relay: ScenarioRelay, guest: Attacker, ordinary: Attacker) -> None:
    to_the_relays_sshd = ("050100", "050100017f000001" + relay.ssh_port.to_bytes(2, "big").hex())

    def answer(who: Attacker) -> str:
        with RunningProgram(who.host, *who.ssh_command("-D", "127.0.0.1:7002", to="cat")) as ssh:
            eventually(lambda: "Authenticated" in ssh.errors, "ssh is in")
            return eventually(
                lambda: who.host.python(_CONNECT, "7002", *to_the_relays_sshd).stdout, "the proxy answers"
            )

    assert answer(guest).strip() == "b''"
    assert "x05" in answer(ordinary)


def test_no_x11_is_forwarded(guest: Attacker, ordinary: Attacker) -> None:
    def ask(who: Attacker) -> str:
        return who.host.run(*who.ssh_command("-Y"), env={"DISPLAY": "127.0.0.1:9"}, check=False).stderr

    assert "X11 forwarding request failed" in ask(guest)
    assert "X11 forwarding request failed" not in ask(ordinary)


def test_no_agent_is_forwarded(relay: ScenarioRelay, guest: Attacker, ordinary: Attacker) -> None:
    def sockets(who: Attacker) -> str:
        command = ("ssh-agent", *who.ssh_command("-A", to="cat"))
        with RunningProgram(who.host, *command) as ssh:
            eventually(lambda: "Authenticated" in ssh.errors, "ssh is in")
            if who is guest:
                eventually(lambda: ssh.lines, "the forced command runs")
                return relay.output("find", "/tmp", "-user", who.user, "-name", "agent.*")
            return eventually(
                lambda: relay.output("find", "/tmp", "-user", who.user, "-name", "agent.*"), "an agent's socket"
            )

    assert not sockets(guest)
    assert sockets(ordinary)


def test_no_tun_device_is_opened(relay: ScenarioRelay, guest: Attacker) -> None:
    done = guest.ssh("-v", "-o", "ExitOnForwardFailure=yes", "-w", "5:5")
    assert "Remote: Server has rejected tunnel device forwarding" in done.stderr
    assert not relay.succeeds("ip", "link", "show", "tun5")


def test_no_password_is_asked_for(guest: Attacker, ordinary: Attacker) -> None:
    passwords = ("-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "PubkeyAuthentication=no")
    assert "Permission denied (publickey)." in guest.ssh(*passwords).stderr
    assert "password" in ordinary.ssh(*passwords).stderr.split("Permission denied", 1)[1]


@pytest.fixture
def shared_connection(guest: Attacker) -> Iterator[tuple[str, str]]:
    """Options that go by a connection of the guest's that is there already."""
    options = ("-o", "ControlPath=/root/keys/shared")
    # A master that was killed leaves its socket, and with it there no other becomes one.
    guest.host.run("rm", "-f", "/root/keys/shared")
    with RunningProgram(guest.host, *guest.ssh_command("-M", *options)) as master:
        eventually(lambda: master.lines, "the first session")
        yield options


def test_a_connection_has_one_session(guest: Attacker, shared_connection: tuple[str, str]) -> None:
    done = guest.ssh("-o", "ControlMaster=no", *shared_connection)
    assert "Session open refused by peer" in done.stderr


def test_a_key_that_is_not_enrolled_does_not_get_in(stranger: Attacker) -> None:
    # The host's sshd has a source of keys that gives it to every other account.
    assert stranger.host.run(*stranger.ssh_command(user="ordinary"), check=False).returncode == 0
    assert "Permission denied (publickey)" in stranger.ssh().stderr


def test_a_second_key_cannot_be_added_where_accounts_keep_theirs(relay: ScenarioRelay, stranger: Attacker) -> None:
    home = relay.infra.user(relay.tunnel_user).home
    directory = f"{home.rstrip('/')}/.ssh"
    key = stranger.host.output("ssh-keygen", "-y", "-f", "/root/keys/stranger")
    relay.run("install", "-d", "-m", "0755", directory)
    relay.run("tee", f"{directory}/authorized_keys", f"{directory}/authorized_keys2", stdin=key + "\n")
    try:
        assert "Permission denied (publickey)" in stranger.ssh().stderr
    finally:
        relay.run("rm", "-r", directory)


def test_a_key_of_one_account_does_not_open_another(relay: ScenarioRelay, guest: Attacker) -> None:
    for user in ("ordinary", "root", relay.agent_user, relay.gateway_user):
        denied = guest.host.run(*guest.ssh_command(user=user), check=False)
        assert "Permission denied" in denied.stderr


def test_nothing_of_the_clients_environment_arrives(relay: ScenarioRelay, guest: Attacker, guest_port: int) -> None:
    port = relay.block("guest")[0]
    env = ("-o", "SetEnv=LANG=tainted PYTHONPATH=/tmp/tainted RELAY_REGISTRY_DIR=/tmp/tainted BASH_ENV=/tmp/tainted")
    with guest.session(*env, forward=port, local_port=guest_port) as session:
        session.hear("ready")
        session.say(**hello("env", port))
        assert session.hear("registered")["name"] == "guest-env"
        assert relay.registrations()["guest-env"].client == "guest"


def test_an_ordinary_account_logs_in_as_before(ordinary: Attacker, desktop: Machine) -> None:
    assert "uid=" in ordinary.ssh(to="id").stdout
    assert desktop.host.name == ordinary.host.name
