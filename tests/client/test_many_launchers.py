"""Launchers of one person that all start at the same moment, as a login does that opens many terminals."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from client.launched import Launched
from client.machine2 import directories
from support.opencodes.opencode import OpenCodeHome
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from client.launched import Machine
    from support.opencodes.opencode2 import Service2
    from support.opencodes.scripted_model import ScriptedModel

MANY1 = 4
"""Each is an OpenCode of its own, which takes seconds of a processor to start."""
MANY2 = 12
"""They share one service."""


def _start_all(machine: Machine, directory: Path, count: int, running: ExitStack) -> list[Launched]:
    launched = []
    for number in range(count):
        project = directory / f"project-{number}"
        project.mkdir()
        program = Launched(machine, "--headless", cwd=project, env={"PWD": str(project)})
        launched.append(running.enter_context(program))
    return launched


@pytest.mark.timeout(400)
def test_launchers_of_opencode_1_that_start_at_once_in_a_new_home_are_all_registered(
    tmp_path: Path, machine: Machine, model: ScriptedModel, opencode_bin: Path
) -> None:
    fresh = OpenCodeHome(tmp_path / "home", model.base_url, binary=opencode_bin)
    new = type(machine)(fresh, machine.registry_dir, machine.project, machine.state_home, machine.config_home)
    with ExitStack() as running:
        _start_all(new, tmp_path, MANY1, running)
        eventually(lambda: len(new.registrations()) == MANY1, "all of them are registered", within=300)
        ports = {registration["port"] for registration in new.registrations().values()}
        assert len(ports) == MANY1
        assert {registration["cwd"] for registration in new.registrations().values()} == {
            str(tmp_path / f"project-{number}") for number in range(MANY1)
        }


def test_launchers_of_opencode_2_that_start_at_once_share_one_service_and_one_line(
    tmp_path: Path, machine2: Machine, service: Service2
) -> None:
    with ExitStack() as running:
        launched = _start_all(machine2, tmp_path, MANY2, running)
        paths = {str(tmp_path / f"project-{number}") for number in range(MANY2)}
        names = {str(one.registered()["name"]) for one in launched}
        assert len(names) == MANY2
        eventually(lambda: len(machine2.registrations()) == 1, "there is one line")
        # Without a screen the home directory is allowed, too.
        allowed = paths | {str(machine2.home.root)}
        eventually(lambda: set(directories(machine2)) == allowed, "it leads to all directories")
        holders = [state for state in machine2.states() if state["holds_line"]]
        assert len(holders) == 1
        assert {state["opencode_pid"] for state in machine2.states()} == {service.pid}
