"""Fixtures of the launcher's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client.launched import Machine

if TYPE_CHECKING:
    from pathlib import Path

    from support.opencode import OpenCodeHome


@pytest.fixture
def machine(opencode_home: OpenCodeHome, tmp_path: Path) -> Machine:
    """A user's machine on which nothing runs yet."""
    project = tmp_path / "project"
    project.mkdir()
    return Machine(opencode_home, tmp_path / "registry", project, tmp_path / "state", tmp_path / "config")
