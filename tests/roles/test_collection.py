"""The roles and playbooks as a collection: built and installed without a network, used by their full names."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.project.role_readmes import PROJECT, roles

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the collection is installed, from its archive."""
    tmp_path = tmp_path_factory.mktemp("collections")
    archives = tmp_path / "archives"
    run(tmp_path, "ansible-galaxy", "collection", "build", "--output-path", archives, PROJECT)
    (archive,) = archives.iterdir()
    run(tmp_path, "ansible-galaxy", "collection", "install", "--offline", "-p", tmp_path, archive)
    return tmp_path


def run(home: Path, command: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(home),
        "ANSIBLE_HOME": str(home / "home"),
        "ANSIBLE_NOCOLOR": "1",
    }
    process = subprocess.run(
        [BIN / command, *arguments], env=environment, cwd=cwd or home, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.parametrize("playbook", ["relay", "provision", "client", "end", "site", "revoke", "remove"])
def test_each_playbook_is_found_in_the_collection_and_in_a_checkout(collections: Path, playbook: str) -> None:
    inventory = PROJECT / "playbooks/inventory/managed.yml"

    for name, cwd in ((f"opencode.relay.{playbook}", collections), (f"playbooks/{playbook}.yml", PROJECT)):
        run(collections, "ansible-playbook", "-i", inventory, "--syntax-check", name, cwd=cwd)


def test_each_role_is_used_by_its_full_name(collections: Path) -> None:
    names = [f"opencode.relay.{role.name}" for role in roles()]
    play = collections / "play.yml"
    play.write_text(f"- hosts: localhost\n  roles: [{', '.join(names)}]\n", encoding="utf-8")

    tasks = run(collections, "ansible-playbook", "-i", "localhost,", "--list-tasks", play)

    assert [name for name in names if f"{name} : " not in tasks] == []


def test_the_package_is_built_from_the_installed_collection(collections: Path, tmp_path: Path) -> None:
    source = collections / "ansible_collections/opencode/relay"

    run(
        collections,
        "pip",
        "wheel",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        source,
    )

    (wheel,) = tmp_path.glob("*.whl")
    packages = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert packages > {"opencode_mcp", "opencode_relay", "opencode_connected"}


def test_the_collection_holds_nothing_that_only_development_needs(collections: Path) -> None:
    installed = {path.name for path in (collections / "ansible_collections/opencode/relay").iterdir()}

    assert installed == {
        *("CHANGELOG.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "pyproject.toml"),
        *("client", "meta", "playbooks", "roles", "server"),
    }
