"""Which process may be ended in the place of an OpenCode; that a dead launcher's is ended is `test_local`'s."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from opencode_connected import processes
from opencode_connected.guardian import end_opencode
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends by itself, with exit code 0, once its input does."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process


def ended_by_itself(process: subprocess.Popen[bytes]) -> bool:
    process.communicate(b"\n")
    return process.returncode == 0


def test_a_process_is_not_ended_by_its_number_alone(stranger: subprocess.Popen[bytes]) -> None:
    end_opencode(pid=stranger.pid, start="", port=free_port(), headless=False)

    assert ended_by_itself(stranger)


def test_a_number_that_was_used_again_while_opencode_disposed_is_left_alone(
    stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True])
    monkeypatch.setattr(processes, "lives", lambda _pid, _start: next(answers, False))

    end_opencode(pid=stranger.pid, start="before", port=free_port(), headless=True)

    assert ended_by_itself(stranger)
