"""The launcher through a real sshd."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from client.launched import Launched
from support.line.sshd import Sshd
from support.ports import is_open
from support.processes import has_ended, named
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psutil

    from client.launched import Machine


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Sshd]:
    """A relay of this test's own."""
    with Sshd(tmp_path / "relay") as running:
        yield running


def ssh_of(launched: Launched) -> psutil.Process:
    """Return the line's ssh."""
    found = eventually(lambda: named("ssh", launched.launcher().children()), "ssh")
    assert found
    return found[0]


def test_an_instance_is_registered_at_the_relay_and_comes_back_when_the_line_breaks(
    machine: Machine, relay: Sshd
) -> None:
    env = {"RELAY_SSH_CMD": relay.ssh_command}
    with Launched(machine, env=env) as launched:
        state = launched.registered()
        eventually(lambda: "connected to the relay, port " in launched.screen, "it says so")
        registration = machine.registrations()[state["name"]]
        assert registration["port"] == state["port"] != state["local_port"] == registration["localPort"]
        assert is_open(registration["port"])

        before = len(launched.screen)
        ssh_of(launched).kill()
        eventually(
            lambda: _line(machine)["reconnects"] == 1 and _line(machine)["phase"] == "registered", "it is back"
        )
        assert "opencode-connected:" not in launched.screen[before:], "nothing is printed over the interface"

        # An explicit name that a living instance holds: known only after OpenCode is up, which must not stay.
        taken = machine.run("--headless", env={**env, "INSTANCE_NAME": state["name"]})
        assert taken.returncode == 5
        assert f"the name {state['name']!r} is held by" in taken.stderr
        assert len(machine.states()) == 1

        def is_shown() -> bool:  # an OpenCode that is slow to answer is said to be so
            status = json.loads(machine.run("status", "--json", env=env).stdout)
            assert [i["state"] for i in status["instances"]] == ["registered"]
            assert [r["name"] for r in status["relay"]["registrations"]] == [state["name"]]
            return True

        eventually(is_shown, "status shows it", within=60)

        ssh = ssh_of(launched)
        launched.launcher().kill()
        eventually(lambda: not machine.registrations() and has_ended(ssh), "neither tunnel nor registration stay")


def test_a_name_that_ones_own_dead_launcher_still_holds_is_taken_over(machine: Machine, relay: Sshd) -> None:
    env = {"RELAY_SSH_CMD": relay.ssh_command, "INSTANCE_NAME": "mine"}
    with Launched(machine, "--headless", env=env) as died:
        died.registered()
        ssh = ssh_of(died)
        ssh.suspend()  # a line that is cut without anybody's noticing: the relay goes on holding the name
        died.launcher().kill()
        try:
            (dead,) = machine.states()
            held = machine.registrations()["mine"]
            assert held["localPort"] == dead["local_port"]
            with Launched(machine, "--headless", env=env) as again:
                eventually(
                    lambda: machine.registrations().get("mine", held)["localPort"] != dead["local_port"],
                    "the name is taken over",
                    within=60,
                )
                assert again.launcher().is_running()
        finally:
            ssh.kill()


def test_an_unreachable_relay_is_said_in_one_line_and_opencode_starts_all_the_same(
    machine: Machine, relay: Sshd
) -> None:
    relay.stop()
    with Launched(machine, "--headless", env={"RELAY_SSH_CMD": relay.ssh_command}) as launched:
        launched.opencode()
        eventually(lambda: "OpenCode starts, and the line is tried again" in launched.screen, "the line says so")
        assert machine.run("status").returncode in (0, 1)
        relay.start()
        state = launched.registered()
        assert machine.registrations()[state["name"]]["port"] == state["port"]


def test_a_relay_that_refuses_for_good_is_said_before_opencode_starts_with_the_remedy(
    machine: Machine, relay: Sshd
) -> None:
    relay.authorized_keys.write_text("")
    refused = machine.run("--headless", env={"RELAY_SSH_CMD": relay.ssh_command})
    assert refused.returncode == 4
    assert refused.stderr.count("\n") == 1
    assert "--local works without the relay" in refused.stderr
    assert machine.states() == []
    assert machine.registrations() == {}


def test_ctrl_c_while_the_relay_is_tried_ends_the_launcher_as_ctrl_c_does(machine: Machine, tmp_path: Path) -> None:
    silent = tmp_path / "silent-ssh"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o755)
    with Launched(machine, "--headless", env={"RELAY_SSH_CMD": str(silent)}) as launched:
        eventually(lambda: named("sleep", launched.family()), "the relay is tried")
        launched.send("\x03")
        assert launched.ended() == -signal.SIGINT
    assert machine.states() == []


def _line(machine: Machine) -> dict[str, Any]:
    (state,) = machine.states()
    line: dict[str, Any] = state["line"]
    return line
