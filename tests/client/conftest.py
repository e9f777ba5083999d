"""Fixtures of the launcher's tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from client.launched import Machine
from client.machine2 import machine_of
from support.opencodes.opencode2 import OpenCode2Home, Service2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.opencodes.opencode import OpenCodeHome
    from support.opencodes.scripted_model import ScriptedModel


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first launcher learnt of OpenCode 1, whose version takes two seconds to tell: a machine asks once."""
    return tmp_path_factory.mktemp("learnt") / "opencode.json"


@pytest.fixture
def machine(opencode_home: OpenCodeHome, tmp_path: Path, learnt: Path) -> Iterator[Machine]:
    """A user's machine on which nothing runs yet."""
    project = tmp_path / "project"
    project.mkdir()
    machine = Machine(opencode_home, tmp_path / "registry", project, tmp_path / "state", tmp_path / "config")
    note = machine.state_dir / learnt.name
    if learnt.exists():
        note.parent.mkdir(parents=True, mode=0o700)
        note.write_bytes(learnt.read_bytes())
    yield machine
    if note.exists() and not learnt.exists():
        facts = json.loads(note.read_bytes())
        if "stamp" in facts:
            learnt.write_text(json.dumps({fact: facts[fact] for fact in ("stamp", "version")}))


@pytest.fixture
def service(tmp_path: Path, model: ScriptedModel, opencode2_bin: Path) -> Iterator[Service2]:
    """The service of an OpenCode 2 of one's own, which nobody has started yet."""
    home = OpenCode2Home(tmp_path / "home", model.base_url, binary=opencode2_bin)
    with Service2(home, started=False) as service:
        yield service


@pytest.fixture
def machine2(service: Service2, tmp_path: Path) -> Machine:
    """A user's machine with OpenCode 2, on which nothing runs yet."""
    return machine_of(service.home, tmp_path)
