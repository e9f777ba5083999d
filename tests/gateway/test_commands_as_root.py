"""Commands that root runs beside a service that is not root: nothing that the service's account planted is followed.

Whoever is not root runs them as the account of the data directory itself, and sees the same.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = 65_534 if os.geteuid() == 0 else os.geteuid()
PASSWORD = "a long enough password"


_WATCHED = """
import atexit, os, runpy, sys

become = os.setuid

def watched(uid):
    become(uid)
    before = set(sys.modules)
    atexit.register(lambda: print("LOADED", sorted(set(sys.modules) - before), file=sys.stderr))

os.setuid = watched
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program, and tells at its end which modules it loaded once it was somebody else."""


class World:
    """A data directory of the service's, and one that is root's alone."""

    def __init__(self, home: Path) -> None:
        self.data = home / "data"
        self.data.mkdir(mode=0o700)
        os.chown(self.data, SERVICE, -1)
        self.root = home / "root"
        self.root.mkdir(mode=0o700)
        self._config = home / "gateway.json"
        settings = {"public_url": "https://relay.example.org", "data_dir": str(self.data)}
        self._config.write_text(json.dumps(settings))
        # Root's alone, too: what the commands need of it they read first.
        self._config.chmod(0o600)

    def run(self, *arguments: str, types: str = "", before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).parent / "opencode-gateway"
        return subprocess.run(
            [*before, program, "--config", self._config, *arguments],
            input=types,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=60,
        )

    def made(self) -> dict[str, tuple[int, int]]:
        """Owner and mode of everything in the data directory."""
        found = {path.name: path.lstat() for path in self.data.iterdir()}
        return {name: (status.st_uid, stat.S_IMODE(status.st_mode)) for name, status in found.items()}


@pytest.fixture
def world() -> Iterator[World]:
    # pytest's own directories are closed to other accounts.
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        yield World(Path(home))


def test_what_commands_make_is_the_services_own(world: World) -> None:
    for arguments, types in (
        (("users", "add", "ann"), PASSWORD),
        (("clients", "allow"), ""),
        (("tokens", "add", "nightly", "--capability", "observe"), ""),
        (("users", "totp", "ann"), ""),
        (("backup", str(world.data / "copy")), ""),
    ):
        done = world.run(*arguments, types=types)
        assert done.returncode == 0, done.stderr

    private = {name: found for name, found in world.made().items() if not name.endswith((".lock", "-wal", "-shm"))}
    assert set(private) == {"users.json", "gateway.sqlite3", "signing.key", "copy"}
    assert set(private.values()) == {(SERVICE, 0o600)}
    assert {owner for owner, _ in world.made().values()} == {SERVICE}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_nothing_is_loaded_any_more_once_root_is_somebody_else_who_perhaps_cannot_read_it(world: World) -> None:
    for arguments in (
        ("users", "add", "ann"),
        ("users", "password", "ann"),
        ("users", "totp", "ann"),
        ("users", "list"),
        ("clients", "allow"),
        ("clients", "list"),
        ("tokens", "add", "nightly", "--capability", "observe"),
        ("sessions", "revoke", "--login", "ann"),
        ("backup", str(world.data / "copy")),
    ):
        done = world.run(*arguments, types=PASSWORD, before=(sys.executable, "-c", _WATCHED))
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[-1] == "LOADED []", arguments


@pytest.mark.skipif(os.geteuid() != 0, reason="nothing is closed to the account that owns all of it")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("users.json", ("users", "add", "ann")),
        ("gateway.sqlite3", ("clients", "list")),
        ("signing.key", ("clients", "allow")),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_a_link_to_what_is_roots_is_not_followed(
    name: str, arguments: tuple[str, ...], there: bool, world: World
) -> None:
    target = world.root / "precious"
    if there:
        target.write_text("{}")
    (world.data / name).symlink_to(target)

    done = world.run(*arguments, types=PASSWORD)

    assert done.returncode != 0
    assert done.stderr.startswith("opencode-gateway: ")
    assert "Traceback" not in done.stderr
    assert [path.name for path in world.root.iterdir()] == (["precious"] if there else [])
    if there:
        assert (target.read_text(), target.stat().st_uid) == ("{}", 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="nothing is closed to the account that owns all of it")
def test_a_backup_goes_where_the_service_may_write_and_else_says_where_that_is(world: World) -> None:
    done = world.run("backup", str(world.root / "copy"))

    assert done.returncode == 1
    assert f"name a new file in {world.data}" in done.stderr
    assert not list(world.root.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is somebody else")
def test_root_does_not_serve_from_a_directory_that_is_not_its_own(world: World) -> None:
    done = world.run("serve")

    assert done.returncode == 1
    assert "not as root" in done.stderr
    assert not world.made()
