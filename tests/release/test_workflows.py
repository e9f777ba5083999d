"""The workflows for hosts that run GitHub's: they call make, run pinned actions, and may do little."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from support.release.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        yield from job["steps"]


def test_there_are_the_two() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "release"]


@each_workflow
def test_each_action_is_pinned_by_its_commit_and_says_its_release(path: Path) -> None:
    for line in path.read_text().splitlines():
        if "uses:" in line:
            assert re.search(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@each_workflow
def test_only_the_draft_may_write_and_it_runs_nothing_of_the_repository(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        if job.get("permissions", {}) != {}:
            assert (name, job["permissions"]) == ("draft", {"contents": "write"})
            assert not any("checkout" in step.get("uses", "") for step in job["steps"])


@each_workflow
def test_no_text_from_outside_becomes_part_of_a_script(path: Path) -> None:
    for step in steps(path):
        assert "${{" not in step.get("run", "")


@each_workflow
def test_what_it_makes_is_a_target_of_the_makefile(path: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):.*## ", (ROOT / "Makefile").read_text()))
    made = {command[1] for step in steps(path) if (command := step.get("run", "").split())[:1] == ["make"]}
    assert made
    assert made <= targets
