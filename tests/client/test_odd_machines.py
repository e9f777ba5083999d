"""Machines that are not as they should be: OpenCode runs all the same, or one line says why not."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client.launched import Launched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.launched import Machine

ENDS_WITH_7 = b'#!/bin/sh\n[ "$1" = --version ] && echo %s || exit 7\n'


def opencode(tmp_path: Path, program: bytes) -> dict[str, str]:
    """Return an environment whose `opencode` is `program`."""
    path = tmp_path / "bin" / "opencode"
    path.parent.mkdir()
    path.write_bytes(program)
    path.chmod(0o755)
    return {"PATH": f"{path.parent}{os.pathsep}{os.environ['PATH']}"}


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """Have no room in `directory`."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "tmpfs", str(directory)], check=True)
    try:
        with (directory / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(b"x" * 4096)
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.mark.parametrize("relay", ["", "ssh -F none -p 1 127.0.0.1"])
@pytest.mark.parametrize("version", [b"1.18.33", b"2.0.15"])
def test_a_state_directory_without_room_costs_nothing_but_the_state(
    machine: Machine, tmp_path: Path, version: bytes, relay: str
) -> None:
    env = {**opencode(tmp_path, ENDS_WITH_7 % version), "RELAY_SSH_CMD": relay}
    with full(machine.state_home), Launched(machine, env=env) as launched:
        assert launched.ended() == 7
        assert "Traceback" not in launched.screen


@pytest.mark.parametrize("version", [b"1.18.33", b"2.0.15"])
def test_a_directory_whose_name_is_no_utf8_is_one_to_work_in(
    machine: Machine, tmp_path: Path, version: bytes
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/od\xffd"))
    odd.mkdir()
    with Launched(machine, env=opencode(tmp_path, ENDS_WITH_7 % version), cwd=odd) as launched:
        assert launched.ended() == 7
        assert "Traceback" not in launched.screen


def test_it_is_registered_as_it_can_be_written(machine: Machine, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/od\xffd"))
    odd.mkdir()
    with Launched(machine, "--headless", cwd=odd) as launched:
        state = launched.registered()
        assert state["cwd"] == f"{tmp_path}/od\ufffdd"
        assert machine.registrations()[state["name"]]["cwd"] == state["cwd"]
        assert machine.run("status").returncode in (0, 1)


@pytest.mark.parametrize(
    ("program", "code", "why"),
    [
        (b"\x7fELF, but not for this machine", 126, "Exec format error"),
        (b"#!/no/such/node\n", 127, "No such file or directory"),
        (b"#!/usr/bin/env no-such-node\n", 127, "no-such-node"),
        (b"#!/bin/sh\nexec /etc/passwd\n", 126, "Permission denied"),
    ],
)
def test_an_opencode_that_cannot_be_executed_is_said_in_one_line_with_a_shells_exit_code(
    machine: Machine, tmp_path: Path, program: bytes, code: int, why: str
) -> None:
    refused = machine.run("--headless", env=opencode(tmp_path, program))

    assert refused.returncode == code
    assert refused.stderr.count("\n") == 1
    assert "/opencode cannot be executed: " in refused.stderr
    assert why in refused.stderr
