"""`doctor` on each hop that can break, against real parts."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from support.line.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from client.launched import Machine

RELAY_HOPS = [
    "ssh",
    "network",
    "host key",
    "authentication",
    "account",
    "forward",
    "registration",
    "tunnel",
    "privacy",
]


def hops(machine: Machine, env: Mapping[str, str], *, code: int) -> dict[str, dict[str, Any]]:
    """Run `doctor`; return its hops by name, in their order."""
    ran = machine.run("doctor", "--json", env=env)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return {hop["hop"]: hop for hop in json.loads(ran.stdout)["hops"]}


def assert_broken(found: Mapping[str, Mapping[str, Any]], broken: str) -> None:
    """All is well before `broken`, which has a remedy, and nothing was reached after it."""
    at = RELAY_HOPS.index(broken)
    statuses = [found[hop]["status"] for hop in RELAY_HOPS]
    assert statuses == ["ok"] * at + ["failed"] + ["not-reached"] * (len(RELAY_HOPS) - at - 1)
    assert found[broken]["detail"]
    assert found[broken]["remedy"]


def test_a_whole_way_is_ok_and_warns_of_the_relays_other_users(machine: Machine, tmp_path: Path) -> None:
    with Sshd(tmp_path / "relay") as relay:
        found = hops(machine, {"RELAY_SSH_CMD": relay.ssh_command}, code=0)
        assert list(found) == ["opencode", "port", "state", "access", *RELAY_HOPS]
        assert {hop["status"] for name, hop in found.items() if name != "privacy"} == {"ok"}
        assert found["privacy"]["status"] == "warning"
        assert "every user of the relay can reach" in found["privacy"]["detail"]
        assert machine.registrations() == {}, "nothing is registered by it"

        text = machine.run("doctor", env={"RELAY_SSH_CMD": relay.ssh_command}).stdout
        assert "ok          tunnel         a request came through it" in text


def test_what_a_startup_file_prints_on_the_relay_is_a_warning(machine: Machine, tmp_path: Path) -> None:
    greeting = 'ForceCommand printf "Welcome to vm"; eval "$SSH_ORIGINAL_COMMAND"'
    with Sshd(tmp_path / "relay", options=(greeting,)) as relay:
        found = hops(machine, {"RELAY_SSH_CMD": relay.ssh_command}, code=0)
    assert found["account"]["status"] == "warning"
    assert found["account"]["detail"].endswith("startup files print: Welcome to vm")
    assert found["account"]["remedy"]
    assert found["tunnel"]["status"] == "ok"


def test_without_a_relay_the_local_registry_is_the_last_hop(machine: Machine) -> None:
    assert list(hops(machine, {}, code=0)) == ["opencode", "port", "state", "access", "registration"]
    machine.registry_dir.chmod(0o777)
    broken = hops(machine, {}, code=1)["registration"]
    assert "may be written by others" in broken["detail"]


def test_an_ssh_command_that_is_not_there_breaks_the_first_hop(machine: Machine) -> None:
    assert_broken(hops(machine, {"RELAY_SSH_CMD": "no-such-ssh me@relay"}, code=1), "ssh")


def test_an_unreachable_relay_breaks_the_network_hop(machine: Machine, tmp_path: Path) -> None:
    with Sshd(tmp_path / "relay") as relay:
        relay.stop()
        assert_broken(hops(machine, {"RELAY_SSH_CMD": relay.ssh_command}, code=1), "network")


def test_an_unknown_host_key_breaks_its_hop(machine: Machine, tmp_path: Path) -> None:
    with Sshd(tmp_path / "relay") as relay:
        relay.known_hosts.write_text("")
        assert_broken(hops(machine, {"RELAY_SSH_CMD": relay.ssh_command}, code=1), "host key")


def test_a_key_that_the_relay_does_not_know_breaks_authentication(machine: Machine, tmp_path: Path) -> None:
    with Sshd(tmp_path / "relay") as relay:
        relay.authorized_keys.write_text("")
        assert_broken(hops(machine, {"RELAY_SSH_CMD": relay.ssh_command}, code=1), "authentication")


def test_a_relay_that_forbids_forwards_breaks_that_hop(machine: Machine, tmp_path: Path) -> None:
    with Sshd(tmp_path / "relay", options=("AllowTcpForwarding no",)) as relay:
        assert_broken(hops(machine, {"RELAY_SSH_CMD": relay.ssh_command}, code=1), "forward")


def test_a_registry_directory_that_the_relay_refuses_breaks_only_its_hop(machine: Machine, tmp_path: Path) -> None:
    machine.registry_dir.mkdir()
    machine.registry_dir.chmod(0o777)
    with Sshd(tmp_path / "relay") as relay:
        found = hops(machine, {"RELAY_SSH_CMD": relay.ssh_command}, code=1)
    assert [name for name, hop in found.items() if hop["status"] == "failed"] == ["registration"]
    assert found["registration"]["remedy"]


def test_a_missing_opencode_is_a_failed_hop_and_exit_code_3_for_the_launcher(
    machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    ps = shutil.which("ps")
    assert ps
    (tmp_path / "bin" / "ps").symlink_to(ps)
    env = {"PATH": str(tmp_path / "bin")}
    found = hops(machine, env, code=1)
    assert found["opencode"]["status"] == "failed"
    assert "npm install" in found["opencode"]["remedy"]
    launched = machine.run("--headless", env=env)
    assert launched.returncode == 3
    assert "npm install" in launched.stderr


@pytest.mark.parametrize("place", [".opencode/bin", ".nvm/versions/node/v22.1.0/bin", ".bun/bin"])
def test_an_opencode_that_is_not_on_this_shells_path_is_found_where_installers_put_it(
    machine: Machine, tmp_path: Path, place: str
) -> None:
    program = tmp_path / "home" / place / "opencode"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path / "home")}
    found = hops(machine, env, code=1)["opencode"]
    assert "install" in found["remedy"], "what cannot be executed is none"
    program.chmod(0o755)

    found = hops(machine, env, code=1)["opencode"]
    assert found["detail"].endswith(f"found at {program}")
    assert f'export PATH="{program.parent}:$PATH"' in found["remedy"]
    launched = machine.run("--headless", env=env)
    assert (launched.returncode, launched.stderr.count("\n")) == (3, 1)
    assert str(program) in launched.stderr


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("1.17.1", "warning"),
        ("1.18.999", "ok"),
        ("2.0.99", "ok"),
        ("opencode v2.3.2", "warning"),
        ("local", "warning"),
    ],
)
def test_an_opencode_of_another_series_is_a_warning(
    machine: Machine, tmp_path: Path, version: str, status: str
) -> None:
    env = other_opencode(tmp_path, f"echo {version}")
    assert hops(machine, env, code=0)["opencode"]["status"] == status


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (r"printf 'first\n\033[31mno such module\n\n' >&2; exit 3", "[31mno such module (exit status 3)"),
        ("exit 4", "it says nothing (exit status 4)"),
        ("kill -9 $$", "it says nothing (signal 9)"),
    ],
)
def test_an_opencode_that_fails_is_quoted_and_not_to_be_installed_again(
    machine: Machine, tmp_path: Path, script: str, said: str
) -> None:
    env = other_opencode(tmp_path, script)
    found = hops(machine, env, code=1)["opencode"]
    assert found["status"] == "failed"
    assert found["detail"].endswith(f"/opencode --version fails: {said}")
    assert found["detail"].isprintable()
    assert "/opencode --version` by hand" in found["remedy"]
    assert "install" not in found["remedy"]


def test_a_state_directory_that_cannot_be_written_is_a_warning(machine: Machine, tmp_path: Path) -> None:
    machine = replace(machine, state_home=tmp_path / "new")
    assert hops(machine, {}, code=0)["state"]["status"] == "ok"
    assert not machine.state_dir.exists(), "nothing stays of the trial"
    machine.state_dir.mkdir(parents=True)
    (machine.state_dir / "log").write_text("in the way")
    found = hops(machine, {}, code=0)["state"]
    assert found["status"] == "warning"
    assert f"{machine.state_dir}/log cannot be written" in found["detail"]
    assert found["remedy"]


def other_opencode(tmp_path: Path, script: str) -> dict[str, str]:
    """Return an environment whose `opencode` runs `script`."""
    other = tmp_path / "bin" / "opencode"
    other.parent.mkdir()
    other.write_text(f"#!/bin/sh\n{script}\n")
    other.chmod(0o755)
    return {"PATH": f"{other.parent}{os.pathsep}{os.environ['PATH']}"}
