"""What is written for systemd and launchd, whose it is, and what an installation changes."""

from __future__ import annotations

import dataclasses
import json
import os
import plistlib
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import fake_launchctl
from opencode_connected import settings as settings_module
from opencode_connected.background import environment, installation
from opencode_connected.background.launchd import LABEL, Launchd
from opencode_connected.background.manager import Job, SeenService, own_description
from opencode_connected.background.systemd import Systemd
from opencode_connected.commands import service as verb
from opencode_connected.errors import LauncherError, UsageError
from opencode_connected.openings import Opening, Openings
from opencode_connected.state import InstanceState, StateDirectory, now
from support.processes import end_all
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.launched import Machine

ODD = 'it\'s "$HOME" `id` %n \\ 100 %'


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of somebody who has nothing yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_shell_reads_each_setting_as_it_was(value: str) -> None:
    content = environment.written({"RELAY_SSH_CMD": value})
    read = subprocess.run(["sh", "-c", f'{content}printf %s "$RELAY_SSH_CMD"'], capture_output=True, check=True)
    assert read.stdout.decode() == value
    assert "\n" in value or environment.setting(content, "RELAY_SSH_CMD") == value


def test_settings_passwords_and_what_files_are_found_by_are_written_and_nothing_else() -> None:
    given = {
        "RELAY_PORTS": "1-2",
        "OPENCODE_PASSWORD": "s",
        "PATH": "/bin",
        "SSH_AUTH_SOCK": "/x",
        "RELAY_REMOTE": "",
    }
    assert environment.written(given) == 'OPENCODE_PASSWORD="s"\nPATH="/bin"\nRELAY_PORTS="1-2"\n'


def test_a_value_that_no_service_can_have_is_named() -> None:
    with pytest.raises(UsageError, match="PATH has bytes"):
        environment.written({"PATH": "/a\udcff"})


@pytest.mark.parametrize("program", ["/a\nExecStart=/bin/x", "/a'b", '/a"b', "/a\\b", "/b "])
def test_a_path_that_systemd_would_misread_is_refused(person: Path, program: str) -> None:
    with pytest.raises(UsageError, match="systemd cannot be given the path"):
        Systemd({}).description(Job(Path(program), person / "service.env", person))


@pytest.mark.parametrize("content", [b"[Service]\nExecStart=/bin/true\n", b"\xff", b""])
def test_a_description_of_somebody_else_is_not_taken_for_ours(person: Path, content: bytes) -> None:
    for manager in (Systemd({}), Launchd({}, person)):
        manager.file.parent.mkdir(parents=True)
        manager.file.write_bytes(content)
        with pytest.raises(LauncherError, match="is left alone"):
            own_description(manager)


def test_a_link_is_somebody_elses_whatever_it_leads_to(person: Path) -> None:
    manager = Systemd({})
    ours = manager.description(Job(person, person / "service.env", person))
    manager.file.parent.mkdir(parents=True)
    manager.file.write_text(ours)
    assert own_description(manager) == ours
    manager.file.rename(person / "kept")
    manager.file.symlink_to(person / "kept")
    with pytest.raises(LauncherError, match="is left alone"):
        own_description(manager)


def test_what_runs_from_before_an_upgrade_is_started_anew(person: Path) -> None:
    written = person / "written"
    written.touch()
    with subprocess.Popen(["sleep", "1000"]) as child:
        try:
            running = SeenService("active", child.pid, starts_by_itself=True)
            assert not installation._is_of_before(running, written)
            started = psutil.Process(child.pid).create_time()
            eventually(lambda: time.time() > started + 2.5, "the upgrade comes later")
            os.utime(written, (0, 0))  # a file of a package bears the time at which it was packed
            assert installation._is_of_before(running, written)
        finally:
            child.kill()


def test_a_system_without_systemd_is_told_what_to_do(machine: Machine) -> None:
    ran = machine.run("service", "status", "--json")
    assert (ran.returncode, json.loads(ran.stdout)["state"]) == (1, "absent")
    assert machine.run("service", "uninstall").stdout == "there is nothing to remove\n"
    assert "not installed" in machine.run("service", "status").stdout


def test_opencode_1_is_refused_as_it_needs_a_launcher_in_each_directory(machine: Machine) -> None:
    ran = machine.run("service", "install")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "the service is for OpenCode 2" in ran.stderr
    assert not (machine.config_home / "systemd").exists()


def test_a_launcher_that_was_fetched_for_one_call_is_refused(person: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(person / "cache"))
    program = person / "cache" / "uv" / "opencode-connected"
    program.parent.mkdir(parents=True)
    program.touch()
    with pytest.raises(UsageError, match="lies in a cache"):
        verb.install(settings_module.load({}), program, check=False)
    with pytest.raises(UsageError, match="is no program"):
        verb.install(settings_module.load({}), person / "gone", check=False)


class Mac:
    """A person's session on macOS, with a launcher that notes how it was started, and waits."""

    def __init__(self, home: Path) -> None:
        self.home = home
        commands = home / "bin"
        commands.mkdir()
        fake = commands / "launchctl"
        fake.write_text(f"#!{sys.executable}\n{Path(fake_launchctl.__file__).read_text()}")
        fake.chmod(0o755)
        self.state = commands / "launchd.json"
        self.program = home / ODD.replace("/", "") / "opencode-connected"
        self.program.parent.mkdir()
        self.said = home / "said"
        self.program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$RELAY_SSH_CMD" "$@" >{self.said}\nexec sleep 1000\n')
        self.program.chmod(0o755)
        self.launchd = Launchd({"PATH": str(commands)}, home)
        self.settings_file = home / "some settings" / "service.env"

    def install(self, settings: dict[str, str]) -> installation.InstallationChange:
        """Install a service with these settings; return what that took."""
        job = Job(self.program, self.settings_file, self.home)
        change = installation.planned(self.launchd, job, environment.written(settings))
        installation.install(self.launchd, change)
        return change

    def asked(self) -> list[list[str]]:
        """Return what launchd was asked to change."""
        asked: list[list[str]] = json.loads(self.state.read_text())["asked"]
        return [words for words in asked if words[0] != "print"]

    def agent(self) -> dict[str, Any]:
        """Return what the agent is described as."""
        found: dict[str, Any] = plistlib.loads(self.launchd.file.read_bytes())
        return found


@pytest.fixture
def mac(tmp_path: Path) -> Iterator[Mac]:
    """A person's session on macOS."""
    mac = Mac(tmp_path)
    yield mac
    pid = mac.launchd.look().pid
    if pid:
        end_all([psutil.Process(pid)])


def test_an_agent_of_launchd_is_installed_changed_and_removed(mac: Mac) -> None:
    agent = f"gui/{os.getuid()}/{LABEL}"
    assert mac.launchd.look() == SeenService("absent")
    assert mac.install({"RELAY_SSH_CMD": ODD, "OPENCODE_PASSWORD": "secret"})
    assert mac.asked() == [["enable", agent], ["bootstrap", agent.rpartition("/")[0], str(mac.launchd.file)]]
    first = mac.launchd.look()
    assert (first.state, first.starts_by_itself) == ("active", True)
    eventually(
        lambda: mac.said.exists() and mac.said.read_text() == f"{ODD}\n--headless\n", "it is as it was asked for"
    )
    assert not mac.install({"RELAY_SSH_CMD": ODD, "OPENCODE_PASSWORD": "secret"}), "there is nothing to do"
    assert mac.launchd.look() == first
    for path in (mac.settings_file, mac.launchd.file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" not in mac.launchd.file.read_text()
    assert mac.agent()["KeepAlive"] is True
    assert mac.agent()["WorkingDirectory"] == str(mac.home)

    change = mac.install({"RELAY_SSH_CMD": "ssh relay"})
    assert [path for path, _ in change.files] == [mac.settings_file]
    assert mac.asked()[2:] == [["bootout", agent], *mac.asked()[:2]]
    assert mac.launchd.look().pid != first.pid

    other = mac.launchd.file.with_name("opencode-relay.api-12345678.plist")
    other.write_text("of the role")
    assert installation.uninstall(mac.launchd, mac.settings_file)
    assert mac.asked()[-1] == ["bootout", agent]
    assert mac.launchd.look() == SeenService("absent")
    assert list(mac.launchd.file.parent.iterdir()) == [other]
    assert not mac.settings_file.exists()
    assert not installation.uninstall(mac.launchd, mac.settings_file)


def test_its_status_has_what_was_opened_from_afar(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    mac.install({})
    monkeypatch.setattr(verb, "_manager", lambda _settings: mac.launchd)
    settings = dataclasses.replace(settings_module.load({}), state_dir=mac.home / "state")
    assert verb.status(settings).opened_from_afar == []
    launcher = InstanceState(
        instance_id="0" * 32,
        launcher_pid=mac.launchd.look().pid or 0,
        launcher_start="",
        started_at=now(),
        hostname=socket.gethostname(),
        cwd=str(mac.home),
        mode="local",
        headless=True,
        registry_dir=str(mac.home),
        log_file=mac.home / "log",
        generation=2,
        line_key="0123456789abcdef",
    )
    other = launcher.model_copy(
        update={"instance_id": "1" * 32, "launcher_pid": os.getpid(), "line_key": "of-another"}
    )
    for state in (launcher, other):
        StateDirectory(settings.state_dir).write(state)
        opening = Opening(directory=f"/work/{state.line_key}", name=f"box-{state.line_key}", opened_at=now())
        Openings(settings.state_dir, state.line_key or "").write([opening])
    seen = verb.status(settings)
    assert [each.directory for each in seen.opened_from_afar] == ["/work/0123456789abcdef"]
    shown = [str(line) for line in seen.as_text()]
    assert "  opened    box-0123456789abcdef, /work/0123456789abcdef, from afar" in shown


def test_an_agent_of_that_name_from_another_file_is_left_alone(mac: Mac) -> None:
    mac.install({})
    elsewhere = mac.home / "elsewhere.plist"
    mac.launchd.file.rename(elsewhere)
    state = json.loads(mac.state.read_text())
    mac.state.write_text(json.dumps({**state, "path": str(elsewhere)}))
    with pytest.raises(LauncherError, match=r"launchd has .*elsewhere\.plist as opencode-connected"):
        mac.install({})
    assert not mac.launchd.file.exists()
    assert psutil.pid_exists(state["pid"])
    mac.state.write_text(json.dumps(state))


def test_what_cannot_be_removed_is_said_in_one_line(person: Path) -> None:
    directory = person / "service.env"
    directory.mkdir()
    with pytest.raises(LauncherError, match=r"cannot remove .*service\.env"):
        installation.uninstall(Systemd({}), directory)
