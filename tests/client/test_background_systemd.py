"""The launcher as a unit of a real systemd manager, with the real OpenCode 2."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from client.launched import LAUNCHER, Launched
from support.hosts.user_manager import FAKE_LOGINCTL, UserManager, needs_user_manager
from support.processes import has_ended
from support.waiting import eventually

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from client.launched import Machine
    from support.opencodes.opencode2 import Service2

pytestmark = needs_user_manager
UNIT = "opencode-connected.service"
ODD = '/tmp/it\'s "$HOME" `id` %n \\ 100 %'
STARTS = 90.0
"""Seconds in which the launcher is registered on a machine that does much else."""


class Desk:
    """A person's machine with a systemd manager of the person's own."""

    def __init__(self, machine: Machine, manager: UserManager) -> None:
        self.machine = machine
        self.manager = manager
        self.units = machine.config_home / "systemd" / "user"
        self.unit = self.units / UNIT
        self.settings_file = machine.config_home / "opencode-relay" / "service.env"
        self.program = machine.home.root / "by pip $x %n" / "opencode-connected"
        self.program.parent.mkdir()
        self.program.symlink_to(LAUNCHER)

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `opencode-connected service ARGUMENTS`."""
        return self.manager.run(str(self.program), "service", *arguments, cwd=self.machine.project, env=env)

    def said(self, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
        """Return what it says as JSON."""
        ran = self.run(*arguments, "--json", env=env)
        assert ran.stderr == ""
        said: dict[str, Any] = json.loads(ran.stdout)
        return said


@pytest.fixture
def logind(tmp_path: Path) -> Path:
    """Where the state of logind is, which does not let the person linger yet."""
    directory = tmp_path / "logind"
    directory.mkdir()
    shutil.copy(FAKE_LOGINCTL, directory / "loginctl")
    return directory


@pytest.fixture
def desk(machine2: Machine, logind: Path) -> Iterator[Desk]:
    """A person's machine on which nothing runs but a manager."""
    environment = machine2.environment({"OPENCODE_PASSWORD": "secret"})
    environment["PATH"] = f"{logind}:{environment['PATH']}"
    with UserManager(environment) as manager:
        yield Desk(machine2, manager)


def test_it_is_installed_left_started_anew_and_removed(desk: Desk, service: Service2, logind: Path) -> None:
    desk.units.mkdir(parents=True)
    of_the_role = desk.units / "opencode-connected-api-12345678.service"
    of_the_role.write_text("[Service]\nExecStart=/bin/sleep 1000\n")
    assert desk.manager.systemctl("start", of_the_role.name) == ""

    would = desk.said("install", "--check")
    assert (would["changed"], would["state"], would["checked"]) == (True, "absent", True)
    assert not desk.unit.exists()
    installed = desk.said("install")
    assert (installed["changed"], installed["state"], installed["starts"]) == (True, "active", "login")
    assert installed["boot_hint"].startswith("sudo loginctl enable-linger ")
    launcher = psutil.Process(installed["pid"])
    assert launcher.cwd() == str(desk.machine.home.root)
    assert launcher.cmdline()[-2:] == [str(desk.program), "--headless"]
    assert launcher.environ()["OPENCODE_PASSWORD"] == "secret"
    assert "secret" not in desk.unit.read_text()
    assert stat.S_IMODE(desk.settings_file.stat().st_mode) == 0o600

    eventually(desk.machine.registrations, "the registration", within=STARTS)
    again = desk.said("install")
    assert (again["changed"], again["pid"]) == (False, installed["pid"])
    assert desk.said("install", "--check")["changed"] is False
    shown = desk.run("status")
    assert shown.returncode == 0
    assert f"process {launcher.pid}" in shown.stdout
    assert "journalctl --user" in shown.stdout

    opencode = psutil.Process(service.record()["pid"])
    (logind / "allowed").touch()
    odd = {"INSTANCE_NAME": "my 100 % `machine`", "OPENCODE_CONFIG_DIR": ODD}
    changed = desk.said("install", env=odd)
    assert (changed["changed"], changed["starts"], changed["boot_hint"]) == (True, "boot", "")
    assert changed["pid"] != launcher.pid
    assert has_ended(launcher)
    assert odd.items() <= psutil.Process(changed["pid"]).environ().items()
    eventually(lambda: odd["INSTANCE_NAME"] in desk.machine.registrations(), "it has its name", within=STARTS)

    removed = desk.said("uninstall")
    assert (removed["changed"], removed["state"]) == (True, "absent")
    assert not psutil.pid_exists(changed["pid"])
    assert desk.machine.registrations() == {}
    assert opencode.is_running(), "turns go on"
    assert not desk.unit.exists()
    assert not desk.settings_file.exists()
    assert desk.manager.systemctl("is-active", of_the_role.name) == "active"
    assert of_the_role.exists()
    assert list(desk.units.glob("*.wants/*")) == []
    assert desk.said("uninstall")["changed"] is False


def test_a_launcher_in_a_terminal_shares_its_line_and_takes_it_over(desk: Desk, service: Service2) -> None:
    installed = desk.said("install")
    eventually(desk.machine.registrations, "the registration", within=STARTS)
    other = desk.machine.home.root / "other"
    other.mkdir()
    with Launched(desk.machine, cwd=other, env={"PWD": str(other), "OPENCODE_PASSWORD": "secret"}) as terminal:
        name = terminal.registered()["name"]
        states = {state["launcher_pid"]: state["holds_line"] for state in desk.machine.states()}
        assert states == {installed["pid"]: True, terminal.launcher().pid: False}
        opencode = psutil.Process(service.record()["pid"])
        desk.said("uninstall")
        eventually(lambda: list(desk.machine.registrations()) == [name], "it holds the line", within=STARTS)
        assert opencode.is_running()


def test_one_that_ends_by_itself_is_started_again_and_says_why(desk: Desk) -> None:
    desk.machine.registry_dir.mkdir()
    desk.machine.registry_dir.chmod(0o777)
    desk.said("install")

    def failed() -> bool:
        seen = desk.said("status")
        return (seen["state"], seen["reason"], seen["pid"]) == ("restarting", "exit code 6", None)

    eventually(failed, "it has ended", within=STARTS)
    shown = desk.run("status")
    assert shown.returncode == 1
    assert "restarting: it ended with exit code 6" in shown.stdout
    assert desk.said("uninstall")["changed"] is True
    assert desk.manager.systemctl("list-units", "--all", "--plain", "--no-legend", UNIT) == ""


@pytest.mark.parametrize("verb", ["install", "uninstall", "status"])
def test_a_unit_of_that_name_that_is_not_ours_is_left_alone(desk: Desk, verb: str) -> None:
    desk.units.mkdir(parents=True)
    theirs = "[Service]\nExecStart=/bin/sleep 1000\n"
    desk.unit.write_text(theirs)
    desk.manager.systemctl("start", UNIT)
    ran = desk.run(verb)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert f"{desk.unit} is not what" in ran.stderr
    assert desk.unit.read_text() == theirs
    assert desk.manager.systemctl("is-active", UNIT) == "active"


def test_a_unit_of_that_name_elsewhere_or_masked_is_left_alone(desk: Desk) -> None:
    elsewhere = Path(desk.manager.environment["XDG_DATA_HOME"]) / "systemd" / "user" / UNIT
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text("[Service]\nExecStart=/bin/sleep 1000\n")
    desk.manager.systemctl("daemon-reload")
    ran = desk.run("install")
    assert ran.returncode == 1
    assert f"systemd has {elsewhere} as {UNIT}" in ran.stderr
    assert not desk.unit.exists()
    elsewhere.unlink()
    desk.manager.systemctl("mask", UNIT)
    ran = desk.run("install")
    assert ran.returncode == 1
    assert f"systemctl --user unmask {UNIT}" in ran.stderr


def test_a_directory_that_systemd_does_not_read_is_said(desk: Desk) -> None:
    ran = desk.run("install", env={"XDG_CONFIG_HOME": str(desk.machine.home.root / "elsewhere")})
    assert ran.returncode == 1
    assert "its own XDG_CONFIG_HOME is another one" in ran.stderr


def test_without_a_manager_of_ones_own_it_is_said_how_to_get_one(desk: Desk) -> None:
    ran = desk.run("install", env={"XDG_RUNTIME_DIR": "/run/user/none"})
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "by ssh or at the desk" in ran.stderr
    assert "sudo loginctl enable-linger" in ran.stderr
    assert not desk.unit.exists()
    assert not desk.settings_file.exists()
    ran = desk.machine.run("service", "install")
    assert "was not booted with systemd" in ran.stderr
