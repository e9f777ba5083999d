"""One version, the notes of a release, its sums and its bills of materials."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from datetime import date
from typing import TYPE_CHECKING

import pytest
import yaml

from support.release.build import sums
from support.release.notes import is_released, notes, sections
from support.release.project import ROOT, NotReady, metadata, prepare, version
from support.release.sbom import for_linux, of_debian

if TYPE_CHECKING:
    from pathlib import Path

CHANGELOG = """# Changelog

What [this] is.

## [Unreleased]

### Added

- A thing.

## [0.1.0] - 2026-01-02

### Fixed

- Another.
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "galaxy.yml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


def test_the_collection_has_the_version_of_the_package() -> None:
    assert version() == metadata()["version"]


def test_no_other_file_names_the_version() -> None:
    named = rf"version[^a-z0-9]{{1,4}}{re.escape(version())}"
    command = ["git", "grep", "--name-only", "--ignore-case", "--extended-regexp", named, "--", ":!*.md"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert listed == ["galaxy.yml", "pyproject.toml"]


def test_two_versions_are_told_with_what_to_run(tree: Path) -> None:
    (tree / "galaxy.yml").write_text("version: 0.0.9\n")

    with pytest.raises(NotReady, match=r"galaxy.yml has 0.0.9: run `make prepare-release TO="):
        version(tree)


def test_preparing_a_release_writes_its_version_everywhere(tree: Path) -> None:
    prepare("1.2.3", date(2026, 12, 1), tree)

    assert version(tree) == "1.2.3"
    assert metadata(tree)["version"] == yaml.safe_load((tree / "galaxy.yml").read_text())["version"] == "1.2.3"
    changelog = (tree / "CHANGELOG.md").read_text()
    assert list(sections(changelog)) == ["Unreleased", "1.2.3", "0.1.0"]
    assert sections(changelog)["1.2.3"] == ("2026-12-01", "### Added\n\n- A thing.")
    assert is_released(changelog, "1.2.3")


def test_preparing_the_same_release_again_changes_nothing(tree: Path) -> None:
    prepare("1.2.3", date(2026, 12, 1), tree)
    before = {path: path.read_text() for path in tree.iterdir()}

    prepare("1.2.3", date(2026, 12, 2), tree)

    assert {path: path.read_text() for path in tree.iterdir()} == before


@pytest.mark.parametrize("bad", ["", "1.2", "v1.2.3", "1.2.3rc1", "01.2.3", "1.2.3\n", "1.2.٣"])
def test_what_galaxy_would_not_take_is_no_version(tree: Path, bad: str) -> None:
    before = {path: path.read_text() for path in tree.iterdir()}

    with pytest.raises(NotReady, match="three numbers"):
        prepare(bad, date(2026, 12, 1), tree)

    assert {path: path.read_text() for path in tree.iterdir()} == before


def test_the_notes_of_a_release_are_its_section() -> None:
    assert notes(CHANGELOG, "0.1.0") == "# opencode-relay 0.1.0 (2026-01-02)\n\n### Fixed\n\n- Another.\n"


def test_a_rehearsals_notes_say_that_it_is_not_released() -> None:
    assert notes(CHANGELOG, "0.2.0") == "# opencode-relay 0.2.0, not released\n\n### Added\n\n- A thing.\n"
    assert not is_released(CHANGELOG, "0.2.0")


def test_sha256sum_takes_the_sums(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")

    (tmp_path / "SHA256SUMS").write_text(sums(tmp_path))

    assert hashlib.sha256(b"1").hexdigest() in (tmp_path / "SHA256SUMS").read_text()
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert sums(tmp_path) == (tmp_path / "SHA256SUMS").read_text()


@pytest.mark.parametrize("image", ["server", "gateway"])
def test_a_bill_has_what_linux_installs_with_the_hashes(image: str) -> None:
    lock = (ROOT / "images" / image / "requirements.txt").read_text()

    kept = for_linux(lock)

    names = [line.partition("==")[0] for line in kept.splitlines() if "==" in line]
    assert "pywin32" not in names
    assert "mcp" in names
    assert "h11" in names
    assert kept.count("--hash=sha256:") > len(names)
    assert "#" not in kept


def test_debians_packages_have_a_package_url() -> None:
    (one,) = of_debian("libstdc++6:amd64\t1:12.2.0-14+deb12u1\tamd64\n")

    assert (one["name"], one["version"]) == ("libstdc++6", "1:12.2.0-14+deb12u1")
    assert one["purl"] == "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=amd64"
