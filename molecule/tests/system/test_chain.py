"""From a message at the relay to OpenCode on a laptop and back, through everything that was provisioned."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.hosts.hosts import RunningProgram
from support.waiting import eventually

if TYPE_CHECKING:
    from support.hosts.scenario import Machine, ScenarioRelay, SeenRegistration

_INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "by-hand", "version": "0"},
}


@pytest.mark.usefixtures("fleet")
def test_every_instance_of_a_managed_machine_is_registered_under_its_machines_name(
    relay: ScenarioRelay, machines: list[Machine]
) -> None:
    names = {f"{machine.client}-{instance}" for machine in machines for instance in machine.instances}
    for machine in machines:
        registered = relay.registered(machine.client)
        assert len(registered) == machine.lines
        assert registered.keys() <= names

    def listed() -> bool:
        (answer,) = relay.call_tools(("instances", {}))
        assert all(f"{name}: idle" in answer["text"] for name in names), answer["text"]
        return True

    # A launcher's directory is read by the one that holds the line twice a second.
    eventually(listed, "the server shows every instance")


@pytest.mark.usefixtures("fleet")
def test_each_instance_is_on_a_port_of_its_machines_own_block(relay: ScenarioRelay, machines: list[Machine]) -> None:
    for machine in machines:
        block = relay.block(machine.client)
        assert len(block) == relay.block_size
        assert {entry.port for entry in relay.registered(machine.client).values()} <= set(block)


@pytest.mark.usefixtures("fleet")
def test_the_gateways_user_lists_sends_and_reads(relay: ScenarioRelay, machines: list[Machine]) -> None:
    for machine in machines:
        name = next(iter(relay.registered(machine.client)))
        word = f"across-{machine.person}"
        sent, listed, read = relay.call_tools(
            ("send", {"instance": name, "message": f"say {word}", "session": "new"}),
            ("instances", {}),
            ("read", {"instance": name}),
        )
        assert not sent["is_error"], sent
        assert f"{name}: idle" in listed["text"]
        assert f"echo: say {word}" in sent["text"]
        assert f"echo: say {word}" in read["text"]


@pytest.mark.usefixtures("fleet")
def test_an_account_that_may_starts_the_server_by_sudo_and_nothing_else(
    relay: ScenarioRelay, desktop: Machine
) -> None:
    server = f"{relay.venv}/bin/opencode-mcp"
    sudo = ("sudo", "-n", "-u", relay.gateway_user)
    questions = (
        {"id": 1, "method": "initialize", "params": _INITIALIZE},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "instances", "arguments": {}}},
    )
    with RunningProgram(relay, *sudo, "SEND_TIMEOUT_MS=45000", server, user="ordinary") as running:
        for question in questions:
            running.write(json.dumps({"jsonrpc": "2.0", **question}) + "\n")
        answer = running.wait_for(lambda line: '"id":2' in line, "the list of instances")
        # Where the registrations lie, the relay's own settings say.
        assert next(iter(relay.registered(desktop.client))) in running.lines[answer]
    for command in (("id",), (f"{relay.venv}/bin/python",), ("RELAY_REGISTRY_DIR=/tmp", server), (server, "--help")):
        assert relay.run(*sudo, *command, user="ordinary", check=False).stderr.startswith("sudo: "), command
    assert relay.run("sudo", "-n", server, user="ordinary", check=False).stderr.startswith("sudo: ")
    assert relay.run(*sudo, server, user="nobody", check=False).stderr.startswith("sudo: ")


def test_the_launcher_came_by_pipx_to_an_unprivileged_person(machines: list[Machine]) -> None:
    for machine in machines:
        listed = json.loads(machine.host.output("pipx", "list", "--json", user=machine.person))
        assert "opencode-relay" in listed["venvs"]
        launchers = machine.host.output("pgrep", "-u", machine.person, "-f", "opencode-connected --headless")
        assert len(launchers.split()) >= len(machine.instances)


def test_the_private_key_is_the_persons_alone_and_only_its_public_half_is_at_the_relay(
    relay: ScenarioRelay, machines: list[Machine]
) -> None:
    for machine in machines:
        enrolled = json.loads(machine.launcher("enroll", "--json", "--check").stdout)
        key = machine.host.infra.file(enrolled["key_file"])
        assert (key.user, key.mode) == (machine.person, 0o600)
        assert enrolled["public_key"].split()[1] == relay.clients()[machine.client]["key"].split()[1]


def _is_well(machine: Machine) -> bool:
    doctor = machine.launcher("doctor")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    return True


@pytest.mark.usefixtures("fleet")
def test_the_launchers_own_doctor_and_status_agree(machines: list[Machine]) -> None:
    for machine in machines:
        # It gives OpenCode 20 s to say its version, which is little where three of them have just started.
        eventually(partial(_is_well, machine), "the doctor is content", within=90)
        status = json.loads(machine.launcher("status", "--json").stdout)
        assert {instance["state"] for instance in status["instances"]} == {"registered"}


def test_an_instance_that_is_quit_leaves_the_list_at_once(
    relay: ScenarioRelay, desktop: Machine, fleet: dict[str, SeenRegistration]
) -> None:
    name = f"{desktop.client}-api"
    assert name in fleet
    (unit,) = desktop.units()
    gone = f"instance {name} on port {fleet[name].port} is gone: it was quit"
    before = relay.journal().count(gone)
    desktop.systemctl("stop", unit)
    try:
        # Long before 12 s of silence would be the reason.
        eventually(lambda: name not in relay.registrations(), "the registration is taken back", within=10)
        eventually(lambda: relay.journal().count(gone) == before + 1, "the journal says why", within=60)
    finally:
        desktop.systemctl("start", unit)
