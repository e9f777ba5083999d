"""The relay program and the directory that it writes to."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from client.line.conftest import INSTANCE_ID, registration
from client.line.relay_program import Program, names
from opencode_connected.line import protocol
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.opencodes.fake_health import FakeHealth


@contextmanager
def _writable_by_others(directory: Path) -> Iterator[Path]:
    directory.mkdir()
    directory.chmod(0o770)
    yield directory


@contextmanager
def _symlink(directory: Path) -> Iterator[Path]:
    target = directory.with_name("elsewhere")
    target.mkdir(mode=0o700)
    directory.symlink_to(target)
    yield directory


@contextmanager
def _dangling_symlink(directory: Path) -> Iterator[Path]:
    directory.symlink_to(directory.with_name("nowhere"))
    yield directory


@contextmanager
def _file(directory: Path) -> Iterator[Path]:
    directory.write_text("")
    yield directory


@contextmanager
def _somebody_elses(directory: Path) -> Iterator[Path]:
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)
    yield directory


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_writable_by_others, "may be written by others"),
        (_symlink, "is a symbolic link"),
        (_dangling_symlink, "is a symbolic link"),
        (_file, "is no directory"),
        (_somebody_elses, "belongs to another user (uid 65534)"),
    ],
)
def test_a_registry_directory_that_is_not_safe_is_refused(
    shell: str, make: Any, says: str, registry_dir: Path, opencode: FakeHealth
) -> None:
    # With a slash at its end, the path of a link would be the path of its target.
    with make(registry_dir), Program(f"{registry_dir}/", shell) as program:
        for request in (protocol.hello(INSTANCE_ID, registration(opencode)), protocol.QUERY):
            refusal = program.ask(request)
            assert refusal["code"] == "bad-directory"
            assert refusal["message"] == f"{registry_dir} on the relay {says}"
    assert not registry_dir.is_dir() or not names(registry_dir)


def test_a_directory_that_becomes_a_symlink_later_is_refused_then(registry_dir: Path, opencode: FakeHealth) -> None:
    with Program(registry_dir) as program:
        program.register(registration(opencode))
        registry_dir.rename(registry_dir.with_name("moved"))
        registry_dir.symlink_to(registry_dir.with_name("moved"))

        assert program.ask(protocol.ping(1))["code"] == "bad-directory"


def test_a_full_disk_is_said_with_its_reason_and_loses_nothing(
    shell: str, tmp_path: Path, opencode: FakeHealth
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(disk)], check=True)
    try:
        with Program(disk, shell) as old, Program(disk, shell) as new:
            old.register(registration(opencode))
            before = {name: (disk / name).read_bytes() for name in names(disk)}
            fill(disk / ".filler")

            refusal = new.register(registration(opencode).model_copy(update={"cwd": "/" + "x" * 4000}))

            assert refusal["code"] == "write-failed"
            assert refusal["message"] == f"cannot write to {disk} on the relay: No space left on device"
            assert {name: (disk / name).read_bytes() for name in before} == before
            assert old.ask(protocol.ping(1))["health"] == "ok"

            eventually(lambda: names(disk) == {*before, ".filler"}, "nothing half-written stays")

            (disk / ".filler").unlink()
            assert new.register(registration(opencode))["type"] == "registered"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"x" * 4096)
