"""Who comes and who goes: enrolling, revoking, and what the others notice of it, which is nothing."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from support.hosts.hosts import RunningProgram
from support.hosts.scenario import hello, play
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.hosts.scenario import Attacker, Machine, ScenarioRelay, SeenRegistration

CUT_WITHIN = 20.0
"""Seconds, on a machine that has other work. That it is the command which cuts, it says itself."""
VISITOR_HOME = "/home/bob/visitor"


@pytest.fixture
def enrolled(relay: ScenarioRelay) -> Iterator[list[dict[str, str]]]:
    """Who is enrolled, as `opencode-relay apply` takes it; the same at the end."""
    clients = [{"name": name, "key": entry["key"]} for name, entry in relay.clients().items()]
    yield clients
    for revoked in json.loads(relay.output("cat", "/etc/opencode-relay/clients.json"))["revoked"]:
        relay.administer("unrevoke", revoked["fingerprint"])
    _apply(relay, clients)


def _apply(relay: ScenarioRelay, clients: list[dict[str, str]]) -> dict[str, Any]:
    outcome: dict[str, Any] = relay.administer("apply", stdin=json.dumps({"clients": clients}))
    return outcome


@pytest.mark.usefixtures("enrolled")
def test_a_revoked_client_is_cut_off_at_once_and_nobody_else(
    relay: ScenarioRelay,
    guest: Attacker,
    guest_port: int,
    fleet: dict[str, SeenRegistration],
    figure: Callable[[str, float], None],
) -> None:
    others = relay.connections()
    first, second, *_ = relay.block("guest")
    unseen_command = guest.ssh_command("-N", "-R", f"127.0.0.1:{second}:127.0.0.1:9", to="")
    with guest.session(forward=first, local_port=guest_port) as session:
        session.say(**hello("guest-stolen", first))
        session.hear("registered")
        with RunningProgram(guest.host, *unseen_command) as unseen:
            eventually(lambda: relay.listens(second), "a connection without a session")
            began = time.monotonic()
            outcome = relay.administer("revoke", "guest")
            for connection in (session, unseen):
                assert connection.ended(within=CUT_WITHIN) == 255
            eventually(
                lambda: "guest-stolen" not in relay.registrations(), "its registration is gone", within=CUT_WITHIN
            )
            figure("revoked: its connections cut and its registration gone", time.monotonic() - began)
    assert outcome["removed"] == ["guest"]
    assert outcome["cut"] >= 2
    assert "Permission denied (publickey)" in guest.ssh().stderr
    assert others <= relay.connections()
    assert fleet.items() <= relay.registrations().items()
    eventually(lambda: not relay.listens(first) and not relay.listens(second), "nothing listens", within=CUT_WITHIN)


@pytest.mark.usefixtures("fleet")
def test_a_revoked_client_is_cut_off_while_the_agent_is_down(
    relay: ScenarioRelay, guest: Attacker, enrolled: list[dict[str, str]]
) -> None:
    # A forced command ends with the agent, so what is left to cut is what sshd has just let in.
    relay.run("systemctl", "stop", "opencode-relay-agent.socket", "opencode-relay-agent.service")
    try:
        port = relay.block("guest")[0]
        with RunningProgram(
            guest.host, *guest.ssh_command("-N", "-R", f"127.0.0.1:{port}:127.0.0.1:9", to="")
        ) as unseen:
            eventually(lambda: relay.listens(port), "a connection without a session")
            assert relay.administer("revoke", "guest")["cut"] >= 1
            assert unseen.ended(within=CUT_WITHIN) == 255
    finally:
        relay.run("systemctl", "start", "opencode-relay-agent.socket", "opencode-relay-agent.service")
    assert len(relay.clients()) == len(enrolled) - 1


def test_a_revoked_key_is_not_taken_again_until_somebody_says_so(
    relay: ScenarioRelay, enrolled: list[dict[str, str]]
) -> None:
    relay.administer("revoke", "guest")
    done = relay.run(
        f"{relay.venv}/bin/opencode-relay", "apply", stdin=json.dumps({"clients": enrolled}), check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    remedy = re.search(r"opencode-relay unrevoke (SHA256:\S+)", line)
    assert remedy
    relay.administer("unrevoke", remedy[1])
    assert _apply(relay, enrolled)["added"] == ["guest"]


def test_a_client_that_is_removed_shifts_nobody_and_gets_its_block_back(
    relay: ScenarioRelay, enrolled: list[dict[str, str]], fleet: dict[str, SeenRegistration]
) -> None:
    blocks = {name: relay.block(name) for name in relay.clients()}
    outcome = _apply(relay, [client for client in enrolled if client["name"] != "guest"])
    assert outcome["removed"] == ["guest"]
    newcomer = {"name": "newcomer", "key": relay.output("cat", "/etc/ssh/ssh_host_ed25519_key.pub")}
    _apply(relay, [client for client in enrolled if client["name"] != "guest"] + [newcomer])
    assert set(relay.block("newcomer")).isdisjoint(blocks["guest"])
    _apply(relay, enrolled)
    assert {name: relay.block(name) for name in relay.clients()} == blocks
    assert fleet.items() <= relay.registrations().items()


@pytest.mark.parametrize(
    "name", ["ANN-LAPTOP", "ann", "ann-laptop-2", "Studio", "studio_1x", "../x", "x y", "-x", "", "x" * 33]
)
def test_a_name_by_which_one_could_pose_as_another_is_refused(
    relay: ScenarioRelay, enrolled: list[dict[str, str]], name: str
) -> None:
    newcomer = {"name": name, "key": relay.output("cat", "/etc/ssh/ssh_host_ed25519_key.pub")}
    before = relay.output("cat", "/etc/opencode-relay/authorized_keys")
    wanted = json.dumps({"clients": [*enrolled, newcomer]})
    done = relay.run(f"{relay.venv}/bin/opencode-relay", "apply", stdin=wanted, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert relay.output("cat", "/etc/opencode-relay/authorized_keys") == before


@pytest.mark.timeout(600)
def test_a_person_without_ansible_enrols_joins_is_driven_and_is_revoked(
    relay: ScenarioRelay, desktop: Machine, enrolled: list[dict[str, str]], fleet: dict[str, SeenRegistration]
) -> None:
    connections = relay.connections()
    env = {"XDG_CONFIG_HOME": f"{VISITOR_HOME}/config", "XDG_STATE_HOME": f"{VISITOR_HOME}/state"}
    env["OPENCODE_CONFIG"] = f"/home/{desktop.person}/.config/opencode/opencode.json"
    desktop.host.run("rm", "-rf", VISITOR_HOME)
    desktop.host.run("install", "-d", "-o", desktop.person, VISITOR_HOME)
    made = json.loads(desktop.launcher("enroll", "--name", "visitor", "--json", env=env).stdout)

    # The line goes into the inventory. Of the managed machines nothing is known in this run: they stay as they are.
    guest = next(client for client in enrolled if client["name"] == "guest")
    visitor = {"name": "visitor", "key": made["public_key"]}
    inventory = json.dumps({"relay_clients": [guest, visitor]})
    played = play("relay.yml", "--tags", "relay_sshd_clients", "--extra-vars", inventory)
    assert played.succeeded, played.said
    assert connections <= relay.connections()
    line = re.search(r"visitor: opencode-connected enroll --join (ocr1:[\w-]+)", played.said)
    assert line

    joined = desktop.launcher("enroll", "--join", line[1], env=env)
    assert joined.returncode == 0, joined.stderr
    launcher = f"/home/{desktop.person}/.local/bin/opencode-connected"
    command = ("env", "-C", VISITOR_HOME, launcher, "--headless")
    with RunningProgram(desktop.host, *command, user=desktop.person, env={**env, "INSTANCE_NAME": "trip"}):
        eventually(lambda: "visitor-trip" in relay.registrations(), "the visitor's instance", within=60)
        (sent,) = relay.call_tools(("send", {"instance": "visitor-trip", "message": "say welcome"}))
        assert "echo: say welcome" in sent["text"]

        played = play("revoke.yml", "--extra-vars", "client=visitor")
        assert played.succeeded, played.said
        eventually(lambda: "visitor-trip" not in relay.registrations(), "the visitor is cut off", within=CUT_WITHIN)
        assert "visitor" not in relay.clients()
        # It does not come back, and its person is told why.
        refused = desktop.launcher("doctor", env=env)
        assert refused.returncode != 0
        assert "the relay refuses the key" in refused.stdout + refused.stderr
    assert fleet.items() <= relay.registrations().items()


def test_whoever_comes_with_an_ordinary_account_is_told_to_enrol(
    relay: ScenarioRelay, desktop: Machine, ordinary: Attacker
) -> None:
    directory = f"/home/{desktop.person}/ordinary"
    desktop.host.run("install", "-d", "-o", desktop.person, directory)
    for file, mode in (("ordinary", "0600"), ("known_hosts", "0644")):
        desktop.host.run("install", "-o", desktop.person, "-m", mode, f"/root/keys/{file}", directory)
    command = " ".join(ordinary.ssh_command(to="")).replace("/root/keys", directory)
    env = {"RELAY_SSH_CMD": command, "XDG_CONFIG_HOME": directory, "XDG_STATE_HOME": directory}
    told = desktop.launcher("doctor", env=env)
    assert told.returncode != 0
    assert "opencode-connected enroll" in told.stdout + told.stderr
    assert not relay.succeeds("test", "-e", "/tmp/opencode-relay")
