"""What `pipx install` of the wheel brings: programs that run, or say in one line which extra they need."""

from __future__ import annotations

import subprocess
import zipfile
from email import message_from_bytes
from typing import TYPE_CHECKING

import pytest

from release.installed import LAUNCHER, install
from support.release.project import metadata

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = {
    "opencode-connected": LAUNCHER,
    "opencode-relay": LAUNCHER,
    "opencode-mcp": "server",
    "opencode-gateway": "gateway",
}
"""The least that each program needs."""


@pytest.fixture(scope="module")
def launcher_alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("launcher"), LAUNCHER)


@pytest.fixture(scope="module")
def everything(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("gateway"), "gateway")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def test_each_program_of_the_wheel_is_known_here(wheel: Path) -> None:
    assert set(metadata()["scripts"]) == set(PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_with_all_extras_each_program_tells_its_use_and_version(everything: Path, program: str) -> None:
    told = run(everything / program, "--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert program in told.stdout
    assert metadata()["version"] in run(everything / program, "--version").stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_extras_each_program_tells_its_use(launcher_alone: Path, program: str) -> None:
    told = run(launcher_alone / program, "--help")
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize("command", ["serve", "users"])
def test_the_gateway_without_its_extra_says_so_in_one_line(launcher_alone: Path, command: str) -> None:
    names_its_extra("gateway", run(launcher_alone / "opencode-gateway", command))


@pytest.mark.parametrize("arguments", [(), ("--page",), ("call", "instances"), ("tools",)], ids=" ".join)
def test_the_server_without_its_extra_says_so_in_one_line(launcher_alone: Path, arguments: tuple[str, ...]) -> None:
    names_its_extra("server", run(launcher_alone / "opencode-mcp", *arguments))


def test_the_wheels_metadata_are_those_of_the_project(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        told = message_from_bytes(archive.read(name))
    assert told["Version"] == metadata()["version"]
    assert set(told.get_all("Provides-Extra") or ()) == set(metadata()["optional-dependencies"])


def names_its_extra(extra: str, ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert f"'.[{extra}]'" in ended.stderr
