"""Whose leftovers are cleared away; that a start clears them away is `test_local`'s."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from opencode_connected import processes, settings
from opencode_connected.leftovers import clear
from opencode_connected.registry import Owner, Registry
from opencode_connected.state import InstanceState, StateDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_connected.settings import Settings

HERE, ELSEWHERE = socket.gethostname(), "another-container"


@pytest.fixture
def shared(tmp_path: Path, registry_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of this machine in a home that another one shares."""
    for place in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(place, str(tmp_path))
    return settings.load({"RELAY_REGISTRY_DIR": str(registry_dir)})


@pytest.fixture
def dead() -> Owner:
    """A launcher that no longer runs, or runs where its process is not seen from here."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        return Owner("3" * 32, process.pid, processes.start_of(process.pid), processes.since_of(process.pid))


def test_what_another_machine_wrote_into_a_home_that_it_shares_stays(shared: Settings, dead: Owner) -> None:
    states, registry = StateDirectory(shared.state_dir), Registry(shared.registry_dir)
    for number, hostname in enumerate((HERE, ELSEWHERE)):
        states.write(
            InstanceState(
                instance_id=f"{number:032x}",
                launcher_pid=dead.pid,
                launcher_start=dead.since,
                started_at=datetime.now(UTC),
                hostname=hostname,
                cwd="/",
                mode="local",
                headless=True,
                registry_dir=shared.registry_dir,
                log_file=shared.state_dir / "log",
            )
        )
        registry.publish(hostname, json.dumps({"name": hostname, "hostname": hostname}).encode(), dead)
    registry.claim("a claim", dead)  # nothing says whose machine it is of

    said: list[str] = []
    clear(shared, said.append)

    assert [state.hostname for state in states.read_all()] == [ELSEWHERE]
    assert registry.dead() == ["a claim", ELSEWHERE]
    assert said == [f"removed {HERE!r}, which a dead launcher had registered"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[" * 10_000])
def test_what_does_not_say_which_machine_it_is_of_stays(shared: Settings, dead: Owner, content: bytes) -> None:
    registry = Registry(shared.registry_dir)
    registry.publish("a", content, dead)

    clear(shared, print)

    assert registry.dead() == ["a"]
