"""Fixtures that all tests share. What is slow to start (OpenCode) lives as long as the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis
import pytest

from support.opencodes.opencode import OpenCodeHome, ServedOpenCode, find_opencode
from support.opencodes.opencode2 import OpenCode2Home, Service2, find_opencode2
from support.opencodes.scripted_model import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# No deadline: how long one example takes says more about the machine's other work than about the code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def opencode_bin() -> Path:
    """Real OpenCode 1, installed if there is none."""
    return find_opencode()


@pytest.fixture(scope="session")
def opencode2_bin() -> Path:
    """Real OpenCode 2, installed if there is none."""
    return find_opencode2()


@pytest.fixture(scope="session")
def model() -> Iterator[ScriptedModel]:
    """The scripted model. Shared: tests tell their own requests and gates by names of their own."""
    with ScriptedModel() as scripted:
        yield scripted


@pytest.fixture(scope="session")
def opencode_home(tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel, opencode_bin: Path) -> OpenCodeHome:
    """One user's HOME with the scripted model behind OpenCode, and one database for all its instances."""
    return OpenCodeHome(tmp_path_factory.mktemp("home"), model.base_url, binary=opencode_bin)


@pytest.fixture(scope="session")
def opencode(opencode_home: OpenCodeHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedOpenCode]:
    """A served OpenCode that tests share: leave its sessions idle and it alive."""
    with ServedOpenCode(opencode_home, tmp_path_factory.mktemp("project")) as served:
        yield served


@pytest.fixture(scope="session")
def opencode2_home(
    tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel, opencode2_bin: Path
) -> OpenCode2Home:
    """One user's HOME with the scripted model behind OpenCode 2."""
    return OpenCode2Home(tmp_path_factory.mktemp("home2"), model.base_url, binary=opencode2_bin)


@pytest.fixture(scope="session")
def service2(opencode2_home: OpenCode2Home) -> Iterator[Service2]:
    """The managed service of OpenCode 2 that tests share: leave its sessions idle and it alive."""
    with Service2(opencode2_home) as service:
        yield service


@pytest.fixture
def registry_dir(tmp_path: Path) -> Path:
    """Where a registry directory will be: it does not exist yet."""
    return tmp_path / "registry"
