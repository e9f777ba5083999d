"""Instances on one machine without a relay, headless ones and their registration."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import psutil

from client.launched import Launched
from client.machine2 import machine_of
from support.chat.plain_http import NO_TLS
from support.opencodes.opencode import OpenCodeHome
from support.processes import has_ended
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from client.launched import Machine
    from support.opencodes.scripted_model import ScriptedModel

PASSWORD = "correct horse"


def test_two_instances_in_one_directory_are_both_visible_and_the_second_says_its_name(machine: Machine) -> None:
    with Launched(machine, "--headless") as first, Launched(machine, "--headless") as second:
        names = sorted(state.registered()["name"] for state in (first, second))
        assert names[1] == f"{names[0]}-2"
        assert set(machine.registrations()) == set(names)
        renamed = next(launched for launched in (first, second) if launched.registered()["name"] == names[1])
        eventually(lambda: "is already running, so this one is" in renamed.screen, "it says so")
        other = second if renamed is first else first
        assert "is already running" not in other.screen

        taken = machine.run("--headless", env={"INSTANCE_NAME": names[0]})
        assert taken.returncode == 5
        assert taken.stderr.count("\n") == 1
        assert "is held by the OpenCode of process" in taken.stderr
        assert len(machine.states()) == 2, "OpenCode was not left running"

        # What was swept away, the whole directory even, comes back.
        for path in machine.registry_dir.iterdir():
            path.unlink()
        machine.registry_dir.rmdir()
        eventually(lambda: set(machine.registrations()) == set(names), "both are registered again")

        def are_shown() -> bool:  # an OpenCode that is slow to answer is said to be so
            status = machine.run("status")
            assert status.returncode == 0
            assert all(name in status.stdout for name in names)
            assert "swept away" in status.stdout
            return True

        eventually(are_shown, "status shows both", within=60)


def test_a_headless_instance_ends_its_running_tools_with_it(machine: Machine) -> None:
    with Launched(machine, "--headless", env={"OPENCODE_SERVER_PASSWORD": PASSWORD}) as launched:
        state = launched.registered()
        assert PASSWORD not in str(state)
        assert all(PASSWORD not in path.read_text() for path in machine.registry_dir.iterdir() if path.is_file())
        assert all(PASSWORD not in path.read_text() for path in machine.state_dir.glob("log/*"))
        assert all(PASSWORD not in str(process.cmdline()) for process in launched.family())

        url = f"http://127.0.0.1:{state['local_port']}"
        with httpx.Client(base_url=url, auth=("opencode", PASSWORD), trust_env=False, verify=NO_TLS) as client:
            session = client.post("/session", json={"permission": [_ALLOW_BASH]}).json()["id"]
            command = f"sleep 987.{os.getpid()}"  # no other run's
            prompt = {"parts": [{"type": "text", "text": f"[BASH:{command}]"}]}
            client.post(f"/session/{session}/prompt_async", json=prompt).raise_for_status()
        tool = eventually(lambda: _running(command), "the tool runs", within=40)
        assert tool is not None

        def is_listed() -> bool:
            listed = machine.run("sessions", env={"OPENCODE_SERVER_PASSWORD": PASSWORD})
            assert listed.returncode == 0, listed.stdout
            return session in listed.stdout

        eventually(is_listed, "its session is listed", within=60)
        without = machine.run("sessions")
        assert without.returncode == 1
        assert "set OPENCODE_SERVER_PASSWORD" in without.stdout

        launched.launcher().send_signal(signal.SIGTERM)
        # OpenCode is deaf to SIGTERM while it installs packages in the background, and is killed then.
        assert launched.ended() in {-signal.SIGTERM, 128 + signal.SIGKILL}
        eventually(lambda: has_ended(tool), "the tool has ended")
        assert machine.registrations() == {}


def test_an_opencode_behind_a_script_outlives_no_killed_launcher(machine: Machine, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "opencode"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n"{machine.home.binary}" "$@"\nexit $?\n')
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{machine.environment()['PATH']}"
    with Launched(machine, "--headless", env={"PATH": path}) as launched:
        launched.registered()
        assert launched.opencode().name().startswith("opencode")
        opencode, guardian = launched.opencode(), launched.guardian()
        launched.launcher().kill()
        eventually(lambda: has_ended(opencode), "OpenCode ends")
        eventually(lambda: has_ended(guardian), "the guardian ends")
        assert machine.registrations() == {}


def test_a_launcher_that_is_killed_with_its_guardian_leaves_nothing_behind(machine: Machine) -> None:
    with Launched(machine, "--headless") as launched:
        launched.registered()
        opencode, launcher = launched.opencode(), launched.launcher()
        guardian, other = launched.guardians()
        for process in (launcher, guardian):
            process.suspend()  # none of them sees the other's end
        for process in (launcher, guardian):
            process.kill()
        eventually(lambda: has_ended(opencode) and has_ended(other), "OpenCode and the other guardian end")
        assert list(machine.registry_dir.iterdir()) == []


def test_what_is_left_where_all_guardians_are_killed_too_is_cleared_away_at_the_next_start(machine: Machine) -> None:
    with Launched(machine, "--headless") as died:
        died.registered()
        opencode = died.opencode()
        doomed = [died.launcher(), *died.guardians()]
        assert len(doomed) == 3
        for process in doomed:
            process.suspend()
        for process in doomed:
            process.kill()
        try:
            eventually(lambda: all(map(has_ended, doomed)), "they are gone")
            assert not has_ended(opencode)
            with Launched(machine, "--headless", env={"INSTANCE_NAME": "next"}) as launched:
                launched.registered()
                eventually(lambda: has_ended(opencode), "the OpenCode of before ends")
                eventually(lambda: set(machine.registrations()) == {"next"}, "its registration goes")
                eventually(lambda: len(machine.states()) == 1, "its state goes")
                # Its lock is let go a moment after the last of its files.
                eventually(lambda: all("next" in p.name for p in machine.registry_dir.iterdir()), "its files go")
        finally:
            with suppress(psutil.NoSuchProcess):
                opencode.kill()


def test_a_start_that_fails_while_the_database_is_being_made_is_tried_again(
    tmp_path: Path, model: ScriptedModel, opencode_bin: Path
) -> None:
    home = OpenCodeHome(tmp_path / "home", model.base_url, binary=opencode_bin)
    tries = tmp_path / "tries"
    program = home.root / "bin" / "opencode"
    program.unlink()
    # What twenty launchers at once under one new home meet: "database is locked", and exit code 1.
    program.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = serve ]; then echo try >> {tries}; [ $(wc -l < {tries}) -gt 2 ] || exit 1; fi\n'
        f'exec "{opencode_bin.absolute()}" "$@"\n'
    )
    program.chmod(0o755)
    machine = machine_of(home, tmp_path)
    with Launched(machine, "--headless") as launched:
        eventually(machine.registrations, "the registration", within=90)
        assert launched.screen.count("ended at its start with exit code 1") == 2
        assert tries.read_text().count("try") == 3
    tries.write_text("")
    broken = program.read_text().replace("-gt 2", "-gt 99")
    program.write_text(broken)
    (home.root / ".local" / "share" / "opencode" / "opencode.db").touch()
    refused = machine.run("--headless")
    assert refused.returncode == 1
    assert tries.read_text().count("try") == 4, "three times again, and no more"


_ALLOW_BASH = {"permission": "bash", "pattern": "*", "action": "allow"}


def _running(command: str) -> psutil.Process | None:
    for process in psutil.process_iter(["cmdline"]):
        if " ".join(process.info["cmdline"] or []) == command:
            return process
    return None
