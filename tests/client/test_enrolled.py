"""A machine that is enrolled at a relay: what its instances are called, and how it gets another key."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from client.joining import join_line
from client.launched import Launched
from client.line.forced import entry, provisioned
from support.line.sshd import Sshd
from support.ports import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from client.launched import Machine


def enrol(machine: Machine, relay: Sshd, client: str, port: int) -> None:
    """Have `relay` know the machine's key, and the machine the relay."""
    relay.authorized_keys.write_text(entry(json_of(machine, "enroll")["public_key"], port, client=client))
    host_key = " ".join((relay.directory / "host_key.pub").read_text().split()[:2])
    there = {"host": relay.address, "port": relay.port, "user": relay.user, "hostKey": host_key}
    line = join_line(**there, client=client, ports=f"{port}-{port}")
    joined = machine.run("enroll", line)
    assert joined.returncode == 0, joined.stderr
    assert f"enrolled as {client}" in joined.stdout


def json_of(machine: Machine, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(machine.run(*arguments, "--json", env=env).stdout)
    return result


def test_a_default_name_begins_with_the_relays_name_for_the_machine_and_only_at_the_relay(
    machine: Machine, tmp_path: Path
) -> None:
    port = free_port()
    with provisioned(tmp_path / "relay") as relay:
        enrol(machine, relay, "walk", port)
        with Launched(machine, "--headless") as launched:
            assert launched.registered()["name"] == "walk-project"
        with Launched(machine, "--headless", "--local") as launched:
            assert launched.registered()["name"] == f"{socket.gethostname()}-project"
    with (
        Sshd(tmp_path / "other") as other,
        Launched(machine, "--headless", env={"RELAY_SSH_CMD": other.ssh_command}) as launched,
    ):
        assert launched.registered()["name"] == f"{socket.gethostname()}-project"


def test_a_launcher_that_runs_follows_a_relay_that_moved_when_the_machine_joins_anew(
    machine: Machine, tmp_path: Path
) -> None:
    def line() -> dict[str, Any]:
        (state,) = machine.states()
        found: dict[str, Any] = state["line"]
        return found

    before, after = free_port(), free_port()
    with provisioned(tmp_path / "here") as here:
        enrol(machine, here, "laptop", before)
        with Launched(machine, "--headless") as launched, provisioned(tmp_path / "there") as there:
            assert launched.registered()["port"] == before
            here.stop()
            eventually(lambda: line()["phase"] == "retrying", "the line is lost")
            with Sshd(tmp_path / "other") as other:
                elsewhere = json_of(machine, "doctor", env={"RELAY_SSH_CMD": other.ssh_command})["hops"][-1]
            assert (elsewhere["hop"], elsewhere["status"]) == ("launchers", "warning")
            assert "refuses connections" in elsewhere["detail"]

            enrol(machine, there, "laptop", after)

            eventually(lambda: line()["phase"] == "registered" and line()["port"] == after, "it is registered there")
            assert json_of(machine, "doctor")["hops"][-1]["hop"] == "privacy"
            status = json_of(machine, "status")
            assert status["relay"]["error"] is None
            assert status["instances"][0]["line"]["phase"] == "registered"


def test_a_machine_whose_key_was_revoked_is_led_to_another_one(machine: Machine, tmp_path: Path) -> None:
    port = free_port()
    with provisioned(tmp_path / "relay") as relay:
        enrol(machine, relay, "laptop", port)
        assert machine.run("doctor").returncode == 0

        relay.authorized_keys.write_text("")
        (refused,) = (hop for hop in json_of(machine, "doctor")["hops"] if hop["status"] == "failed")
        assert refused["hop"] == "authentication"
        assert "`opencode-connected enroll --new-key`" in refused["remedy"]
        assert str(machine.config_home / "opencode-relay") in refused["remedy"]
        assert "`opencode-connected enroll --new-key`" in machine.run("--headless").stderr

        key = json_of(machine, "enroll", "--new-key")["public_key"]
        relay.authorized_keys.write_text(entry(key, port))
        assert machine.run("doctor").returncode == 0
