"""Fixtures that all tests share. What is slow to start (OpenCode) lives as long as the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis
import pytest

from support.opencode import OpenCodeHome, ServedOpenCode, find_opencode
from support.scripted_model import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# No deadline: how long one example takes says more about the machine's other work than about the code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def opencode_bin() -> Path:
    """Real OpenCode, installed if there is none."""
    return find_opencode()


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


@pytest.fixture
def registry_dir(tmp_path: Path) -> Path:
    """Where a registry directory will be: it does not exist yet."""
    return tmp_path / "registry"
