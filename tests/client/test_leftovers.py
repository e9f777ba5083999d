"""Whose leftovers are whose in a home that machines share; that a start clears them away is `test_local`'s."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import pytest

from opencode_connected import processes, settings
from opencode_connected import registry as registry_module
from opencode_connected.commands.cleanup import cleanup
from opencode_connected.commands.sessions import sessions
from opencode_connected.commands.status import status
from opencode_connected.errors import NameTaken, RegistryRefused
from opencode_connected.leftovers import clear
from opencode_connected.registry import Owner, Registry
from opencode_connected.report import Report
from opencode_connected.state import InstanceState, StateDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_connected.settings import LauncherSettings

HERE, ELSEWHERE = socket.gethostname(), "another-container"


@pytest.fixture
def shared(tmp_path: Path, registry_dir: Path, monkeypatch: pytest.MonkeyPatch) -> LauncherSettings:
    """Settings of this machine in a home that another one shares."""
    for place in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(place, str(tmp_path))
    return settings.load({"RELAY_REGISTRY_DIR": str(registry_dir)})


@pytest.fixture
def dead() -> Owner:
    """A launcher that no longer runs, or runs where its process is not seen from here."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        return Owner("3" * 32, process.pid, processes.start_of(process.pid), processes.since_of(process.pid))


def _state(
    shared: LauncherSettings, owner: Owner, number: int, hostname: str, mode: Literal["local", "relay"] = "local"
) -> InstanceState:
    return InstanceState(
        instance_id=f"{number:032x}",
        launcher_pid=owner.pid,
        launcher_start=owner.since,
        started_at=datetime.now(UTC),
        hostname=hostname,
        name=hostname,
        cwd="/",
        mode=mode,
        headless=True,
        registry_dir=shared.registry_dir,
        log_file=shared.state_dir / "log",
        local_port=1024,
    )


def test_what_another_machine_wrote_into_a_home_that_it_shares_stays(shared: LauncherSettings, dead: Owner) -> None:
    states, registry = StateDirectory(shared.state_dir), Registry(shared.registry_dir)
    for number, hostname in enumerate((HERE, ELSEWHERE)):
        states.write(_state(shared, dead, number, hostname))
        registry.publish(hostname, json.dumps({"name": hostname, "hostname": hostname}).encode(), dead)
    registry.claim("a claim", dead)  # nothing says whose machine it is of

    said: list[str] = []
    clear(shared, said.append)

    assert [state.hostname for state in states.read_all()] == [ELSEWHERE]
    assert registry.dead() == ["a claim", ELSEWHERE]
    assert said == [f"removed {HERE!r}, which a dead launcher had registered"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[" * 10_000])
def test_what_does_not_say_which_machine_it_is_of_stays(
    shared: LauncherSettings, dead: Owner, content: bytes
) -> None:
    registry = Registry(shared.registry_dir)
    registry.publish("a", content, dead)

    clear(shared, print)

    assert registry.dead() == ["a"]


def test_what_is_of_another_machine_is_judged_by_no_process_of_this_one(
    shared: LauncherSettings, dead: Owner
) -> None:
    states, registry = StateDirectory(shared.state_dir), Registry(shared.registry_dir)
    for number, hostname in enumerate((HERE, ELSEWHERE)):
        states.write(_state(shared, dead, number, hostname))
        registry.publish(hostname, json.dumps({"name": hostname, "hostname": hostname}).encode(), dead)
    me = Owner("9" * 32, os.getpid(), "", processes.since_of(os.getpid()))
    # It lives there, and here a process of that number does.
    states.write(_state(shared, me, 9, ELSEWHERE))

    seen = status(shared)
    assert [instance.state for instance in seen.instances] == ["dead", "elsewhere", "elsewhere"]
    assert f"machine   {ELSEWHERE}: run `opencode-connected status` there" in str(seen.as_text()[10:])
    assert [instance.name for instance in sessions(shared, limit=1).instances] == []

    done = cleanup(shared)
    assert (done.registrations, done.states) == ([HERE], [HERE])
    assert [(left.name, left.hostname) for left in done.elsewhere] == [(ELSEWHERE, ELSEWHERE)] * 2
    assert f"left {ELSEWHERE!r} alone" in str(done.as_text())
    assert [state.hostname for state in states.read_all()] == [ELSEWHERE, ELSEWHERE]
    assert registry.dead() == [ELSEWHERE]


def test_a_name_that_is_held_on_another_machine_is_not_taken(shared: LauncherSettings, dead: Owner) -> None:
    registry = Registry(shared.registry_dir)
    me = Owner("9" * 32, os.getpid(), processes.start_of(os.getpid()))
    registry.publish("a", json.dumps({"name": "a", "hostname": ELSEWHERE}).encode(), dead)
    with pytest.raises(NameTaken, match=rf"held on the machine '{ELSEWHERE}'.*remove .*/\.a\.owner"):
        registry.claim("a", me)
    registry.publish("a", json.dumps({"name": "a", "hostname": HERE}).encode(), dead)
    registry.claim("a", me)


def test_a_name_at_the_relay_is_left_behind_only_by_a_launcher_of_this_machine(
    shared: LauncherSettings, dead: Owner
) -> None:
    me = Owner("9" * 32, os.getpid(), "", processes.since_of(os.getpid()))
    report = Report(shared, me, hostname=HERE, cwd="/", mode="relay", headless=True)
    states = StateDirectory(shared.state_dir)
    for number, hostname in enumerate((HERE, ELSEWHERE)):
        states.write(_state(shared, dead, number, hostname, "relay"))
    try:
        assert report.was_left_behind(HERE)
        assert not report.was_left_behind(ELSEWHERE)
    finally:
        report.close()


def test_the_lock_of_another_machine_is_named_and_not_broken(
    shared: LauncherSettings, dead: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_LOCK_SECONDS", 0.1)
    registry = Registry(shared.registry_dir)
    registry.check()
    lock = registry.path / ".a.lock"
    lock.mkdir()
    (lock / "pid").write_text(f"{dead.pid}\n{ELSEWHERE}\n")
    with pytest.raises(RegistryRefused, match=f"on the machine '{ELSEWHERE}'"):
        registry.claim("a", dead)
    assert (lock / "pid").exists()
    (lock / "pid").write_text(f"{dead.pid}\n{HERE}\n")
    registry.claim("a", dead)
    assert not lock.exists()
