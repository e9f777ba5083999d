"""One copy of the server leads, and another does as soon as that one is gone."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opencode_journal.journal import Journal
from opencode_journal.leader import Leader
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

PROGRAM = """
import asyncio, sys
from pathlib import Path
from opencode_journal.leader import Leader

async def main():
    leader = Leader(Path(sys.argv[1]))
    async with leader.standing():
        while not leader.is_leader:
            await asyncio.sleep(0.01)
        print("leads", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def leading(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Run another copy, which leads."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "leads\n"
        yield process
        process.kill()


async def test_when_the_leader_is_killed_another_takes_over(directory: Path) -> None:
    with leading(directory) as first:
        leader = Leader(directory)
        async with leader.standing():
            assert not leader.is_leader
            assert leader.trouble == ""
            first.kill()
            await eventually_async(lambda: leader.is_leader, within=30)
            assert leader.is_leader
        assert not leader.is_leader


async def test_of_many_copies_exactly_one_leads_and_hands_over_at_its_end(directory: Path) -> None:
    leaders = [Leader(directory) for _ in range(5)]
    async with leaders[0].standing():
        for each in leaders:
            each.look()
        assert [each.is_leader for each in leaders] == [True, False, False, False, False]
    for each in leaders[1:]:
        each.look()
    assert [each.is_leader for each in leaders] == [False, True, False, False, False]
    leaders[1]._step_down()


async def test_a_leader_whose_file_was_removed_steps_down_before_it_leads_anew(directory: Path) -> None:
    leader, other = Leader(directory), Leader(directory)
    async with leader.standing():
        (directory / "leader.lock").unlink()
        other.look()
        leader.look()
        assert (leader.is_leader, other.is_leader) == (False, True)
        other._step_down()
        await eventually_async(lambda: leader.is_leader, within=30)


def test_a_lock_that_nobody_can_have_is_said_once_and_tried_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leader = Leader(directory)

    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", no_locks)
        leader.look()
        leader.look()

    assert not leader.is_leader
    assert leader.trouble.endswith(
        "leader.lock cannot be locked: No locks available; set RELAY_STATE_DIR to a local directory"
    )
    assert len(caplog.records) == 1
    leader.look()
    assert leader.is_leader
    assert leader.trouble == ""
    leader._step_down()


def test_in_a_directory_of_somebody_else_nobody_leads(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.mkdir(0o700)
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    leader = Leader(directory)

    leader.look()

    assert not leader.is_leader
    assert f"it belongs to uid {stranger - 1}" in leader.trouble
    assert list(directory.iterdir()) == []


async def test_a_copy_without_a_directory_leads_itself() -> None:
    leader = Leader(None)
    async with leader.standing():
        assert leader.is_leader


def test_that_no_copy_leads_is_said(journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    leader = Leader(directory)
    led = Journal(directory, leader=leader)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", no_locks)
        leader.look()
    assert led.is_kept
    assert led.trouble == f"what happens is not recorded: {leader.trouble}"
    assert "leader.lock cannot be locked" in led.trouble
    leader.look()
    assert led.trouble == ""
    leader._step_down()
    led.close()
