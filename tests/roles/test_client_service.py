"""The role for clients and the launcher's own command on a real systemd manager: neither removes the other's."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.hosts.user_manager import FAKE_LOGINCTL, UserManager, needs_user_manager
from support.opencodes.headless import LAUNCHER
from support.opencodes.opencode2 import OpenCode2Home, Service2
from support.project.role_readmes import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.opencodes.scripted_model import ScriptedModel

pytestmark = needs_user_manager
ROLE = PROJECT / "roles" / "relay_client"
UNIT = "opencode-connected.service"
OF_AN_INSTANCE = "opencode-connected-api-12345678.service"
_PLAYBOOK = str(Path(sys.executable).parent / "ansible-playbook")


class Host:
    """A person's host, on which single phases of the role are played."""

    def __init__(self, home: OpenCode2Home, manager: UserManager, directory: Path, commands: Path) -> None:
        self.manager = manager
        self.units = home.root / ".config" / "systemd" / "user"
        self._directory = directory
        self._variables: dict[str, Any] = {
            "ansible_python_interpreter": sys.executable,
            "relay_client_user": "root",
            "relay_client_service": True,
            "relay_client_path": [str(commands), str(home.root / "bin")],
            "__relay_client_uid": "0",
            "__relay_client_home": str(home.root),
            "__relay_client_command": LAUNCHER,
            "__relay_client_linger": {"stat": {"exists": True}},
        }

    def play(self, tasks: str, *arguments: str) -> str:
        """Play a file of the role's tasks; return what that said of each task."""
        play = {
            "hosts": "all",
            "connection": "local",
            "gather_facts": False,
            "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
            "tasks": [
                {"ansible.builtin.setup": {"gather_subset": ["min", "user"]}},
                {"ansible.builtin.import_tasks": str(ROLE / "tasks" / tasks)},
            ],
            "handlers": [{"ansible.builtin.import_tasks": str(ROLE / "handlers/main.yml")}],
        }
        (self._directory / "play.yml").write_text(json.dumps([play]))
        (self._directory / "variables.json").write_text(json.dumps(self._variables))
        done = self.manager.run(
            *(_PLAYBOOK, "-i", "localhost,", "-e", "@variables.json", *arguments, "play.yml"),
            cwd=self._directory,
            env={"ANSIBLE_HOME": str(self._directory / "ansible"), "ANSIBLE_NOCOLOR": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def is_changed(self, *arguments: str) -> bool:
        """Tell whether the phase of the service changes it."""
        said = self.play("service.yml", *arguments).partition("TASK [Run the launcher as one service")[2]
        found = re.search(r"^(ok|changed): ", said, flags=re.MULTILINE)
        assert found, said
        return found[1] == "changed"

    def is_active(self, unit: str) -> bool:
        """Tell whether a unit runs."""
        return self.manager.systemctl("is-active", unit) == "active"


@pytest.fixture
def host(tmp_path: Path, model: ScriptedModel, opencode2_bin: Path) -> Iterator[Host]:
    """A host of somebody who has OpenCode 2."""
    home = OpenCode2Home(tmp_path / "home", model.base_url, binary=opencode2_bin)
    commands = tmp_path / "logind"
    commands.mkdir()
    shutil.copy(FAKE_LOGINCTL, commands / "loginctl")
    (commands / "allowed").touch()
    environment = home.environment({"RELAY_REGISTRY_DIR": str(tmp_path / "registry")})
    environment["PATH"] = f"{commands}:{environment['PATH']}"
    with Service2(home, started=False), UserManager(environment) as manager:
        yield Host(home, manager, tmp_path, commands)


def test_the_service_is_installed_once_and_outlives_the_units_of_directories(host: Host) -> None:
    host.units.mkdir(parents=True)
    (host.units / OF_AN_INSTANCE).write_text(
        "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=default.target\n"
    )
    host.manager.systemctl("enable", "--now", OF_AN_INSTANCE)

    assert host.is_changed("--check")
    assert not (host.units / UNIT).exists()
    assert host.is_changed()
    assert host.is_active(UNIT)
    assert host.is_active(OF_AN_INSTANCE)
    process = host.manager.systemctl("show", UNIT, "--property=MainPID")
    assert not host.is_changed()
    assert not host.is_changed("--check")

    host.play("systemd.yml")
    assert not (host.units / OF_AN_INSTANCE).exists(), "its directory is not listed any more"
    assert not host.is_active(OF_AN_INSTANCE)
    assert host.is_active(UNIT)
    assert host.manager.systemctl("show", UNIT, "--property=MainPID") == process
