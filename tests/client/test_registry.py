"""The local registry directory: names, owners and locks, against real files and real processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from opencode_connected import processes, registry
from opencode_connected.errors import NameTaken, RegistryRefused
from opencode_connected.registry import Owner, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b'{"name":"a"}'


@pytest.fixture
def me() -> Owner:
    """This process as an owner."""
    pid = os.getpid()
    return Owner("1" * 32, pid, processes.start_of(pid), processes.since_of(pid))


@pytest.fixture
def other() -> Iterator[Owner]:
    """Another living process as an owner."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield Owner("2" * 32, process.pid, processes.start_of(process.pid), processes.since_of(process.pid))


@pytest.fixture
def dead() -> Owner:
    """A process that has ended as an owner."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        start = processes.start_of(process.pid)
    return Owner("3" * 32, process.pid, start)


def files(directory: Path) -> set[str]:
    """Return all names in `directory`."""
    return {path.name for path in directory.iterdir()}


def test_the_directory_is_made_private_and_holds_exactly_the_contracts_files(registry_dir: Path, me: Owner) -> None:
    Registry(registry_dir).publish("a", CONTENT, me)
    assert stat.S_IMODE(registry_dir.stat().st_mode) == 0o700
    assert files(registry_dir) == {"a.json", ".a.owner"}
    assert (registry_dir / "a.json").read_bytes() == CONTENT
    assert (registry_dir / ".a.owner").read_text() == f"{me.instance_id} {me.pid} {me.start}\n{me.since}\n"
    assert stat.S_IMODE((registry_dir / "a.json").stat().st_mode) == 0o600


def test_a_name_held_by_a_living_process_is_taken(registry_dir: Path, me: Owner, other: Owner) -> None:
    shared = Registry(registry_dir)
    shared.claim("a", other)
    with pytest.raises(NameTaken, match=f"process {other.pid}"):
        shared.claim("a", me)
    with pytest.raises(NameTaken):
        shared.publish("a", CONTENT, me)
    assert files(registry_dir) == {".a.owner"}


def test_a_name_held_by_a_dead_process_is_taken_over(registry_dir: Path, me: Owner, dead: Owner) -> None:
    shared = Registry(registry_dir)
    shared.publish("a", b"old", dead)
    shared.publish("a", CONTENT, me)
    assert (registry_dir / "a.json").read_bytes() == CONTENT


def test_a_clock_that_is_set_takes_no_name_from_a_living_owner(registry_dir: Path, me: Owner, other: Owner) -> None:
    before = replace(other, start="Tue_Nov_24_10:00:00_2020")
    shared = Registry(registry_dir)
    shared.publish("a", CONTENT, before)

    with pytest.raises(NameTaken):
        shared.claim("a", me)
    assert shared.dead() == []


def test_an_owner_file_of_before_has_one_line_and_counts(registry_dir: Path, me: Owner, other: Owner) -> None:
    shared = Registry(registry_dir)
    shared.claim("a", replace(other, since=""))
    assert (registry_dir / ".a.owner").read_text().count("\n") == 1

    with pytest.raises(NameTaken):
        shared.claim("a", me)


@pytest.mark.parametrize("since", ["", f"{'0' * 36}:1"])
def test_a_process_id_that_was_used_again_is_no_owner(
    registry_dir: Path, me: Owner, other: Owner, since: str
) -> None:
    earlier = Owner(other.instance_id, other.pid, "Tue_Nov_24_10:00:00_2020", since)
    shared = Registry(registry_dir)
    shared.claim("a", earlier)
    shared.claim("a", me)
    assert me.instance_id in (registry_dir / ".a.owner").read_text()


@pytest.mark.parametrize("goodbye", [None, b"bye"])
def test_what_changed_hands_is_not_withdrawn(
    registry_dir: Path, me: Owner, dead: Owner, goodbye: bytes | None
) -> None:
    shared = Registry(registry_dir)
    shared.publish("a", b"old", dead)
    shared.publish("a", CONTENT, me)
    shared.withdraw("a", dead.instance_id, goodbye=goodbye)
    assert (registry_dir / "a.json").read_bytes() == CONTENT


def test_a_goodbye_note_stands_before_the_file_goes(
    registry_dir: Path, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Registry(registry_dir)
    shared.publish("a", CONTENT, me)
    seen: list[bytes] = []
    monkeypatch.setattr(
        "opencode_connected.registry.time.sleep", lambda _: seen.append((registry_dir / "a.json").read_bytes())
    )
    shared.withdraw("a", me.instance_id, goodbye=b"bye")
    assert seen == [b"bye"]
    assert files(registry_dir) == set()


def test_a_directory_that_vanished_is_made_again(registry_dir: Path, me: Owner) -> None:
    shared = Registry(registry_dir)
    shared.publish("a", CONTENT, me)
    for path in registry_dir.iterdir():
        path.unlink()
    registry_dir.rmdir()
    assert not shared.is_intact("a", CONTENT, me)
    shared.publish("a", CONTENT, me)
    assert shared.is_intact("a", CONTENT, me)


def test_withdrawing_from_a_directory_that_is_gone_is_no_error(registry_dir: Path, me: Owner) -> None:
    Registry(registry_dir).withdraw("a", me.instance_id, goodbye=b"bye")
    assert not registry_dir.exists()


def test_a_symlink_is_refused_even_to_a_directory_of_ones_own(registry_dir: Path, me: Owner, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    registry_dir.symlink_to(target)
    with pytest.raises(RegistryRefused, match="is a symlink; set RELAY_REGISTRY_DIR"):
        Registry(registry_dir).claim("a", me)
    assert files(target) == set()


def test_a_directory_of_somebody_else_is_refused(
    registry_dir: Path, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry_dir.mkdir(mode=0o700)
    monkeypatch.setattr("opencode_connected.registry.os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(RegistryRefused, match="belongs to another user"):
        Registry(registry_dir).claim("a", me)
    assert files(registry_dir) == set()


def test_a_directory_that_others_may_write_to_is_refused_with_the_remedy(registry_dir: Path, me: Owner) -> None:
    registry_dir.mkdir()
    registry_dir.chmod(0o770)
    with pytest.raises(RegistryRefused, match=f"chmod 700 {registry_dir}"):
        Registry(registry_dir).claim("a", me)


def test_a_file_in_the_directorys_place_is_refused(registry_dir: Path, me: Owner) -> None:
    registry_dir.write_text("")
    with pytest.raises(RegistryRefused, match="is not a directory"):
        Registry(registry_dir).claim("a", me)


@pytest.mark.parametrize("kind", ["fifo", "directory", "huge", "garbage"])
def test_an_owner_file_that_is_none_neither_hangs_nor_holds_the_name(
    registry_dir: Path, me: Owner, kind: str
) -> None:
    registry_dir.mkdir(mode=0o700)
    owner = registry_dir / ".a.owner"
    match kind:
        case "fifo":
            os.mkfifo(owner)
        case "directory":
            owner.mkdir()
        case "huge":
            owner.write_bytes(b"1" * 100_000)
        case _:
            owner.write_bytes(b"\xff\x00 not an owner")
    shared = Registry(registry_dir)
    assert shared.dead() == []
    if kind == "directory":
        with pytest.raises(RegistryRefused):
            shared.claim("a", me)
    else:
        shared.claim("a", me)
        assert me.instance_id in owner.read_text()


def test_the_lock_of_a_dead_process_is_broken(registry_dir: Path, me: Owner, dead: Owner) -> None:
    lock = registry_dir / ".a.lock"
    lock.mkdir(parents=True)
    registry_dir.chmod(0o700)
    (lock / "pid").write_text(f"{dead.pid}\n")
    Registry(registry_dir).publish("a", CONTENT, me)
    assert files(registry_dir) == {"a.json", ".a.owner"}


def test_a_lock_whose_maker_died_before_signing_it_is_broken(registry_dir: Path, me: Owner) -> None:
    lock = registry_dir / ".a.lock"
    lock.mkdir(parents=True)
    registry_dir.chmod(0o700)
    os.utime(lock, (0, 0))
    Registry(registry_dir).publish("a", CONTENT, me)
    assert files(registry_dir) == {"a.json", ".a.owner"}


def test_the_lock_of_a_living_process_is_waited_for_and_then_named(
    registry_dir: Path, me: Owner, other: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_LOCK_SECONDS", 0.1)
    lock = registry_dir / ".a.lock"
    lock.mkdir(parents=True)
    registry_dir.chmod(0o700)
    (lock / "pid").write_text(str(other.pid))
    with pytest.raises(RegistryRefused, match=r"\.a\.lock"):
        Registry(registry_dir).publish("a", CONTENT, me)
    assert (lock / "pid").exists()


def test_of_many_that_claim_a_name_at_once_exactly_one_gets_it(registry_dir: Path, other: Owner) -> None:
    outcomes: list[bool] = []
    ready = threading.Barrier(8)

    def claim(number: int) -> None:
        owner = Owner(f"{number:032x}", other.pid, other.start)
        ready.wait()
        try:
            Registry(registry_dir).claim("a", owner)
        except NameTaken:
            outcomes.append(False)
        else:
            outcomes.append(True)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]


def test_a_full_disk_is_said_and_leaves_no_half_file(
    registry_dir: Path, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Registry(registry_dir)
    shared.claim("a", me)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("opencode_connected.registry.os.write", full)
    with pytest.raises(RegistryRefused, match="No space left on device"):
        shared.publish("a", CONTENT, me)
    assert files(registry_dir) == {".a.owner"}


def test_only_what_has_a_dead_owner_is_cleaned_up(registry_dir: Path, me: Owner, dead: Owner) -> None:
    shared = Registry(registry_dir)
    shared.publish("alive", CONTENT, me)
    shared.publish("dead", CONTENT, dead)
    (registry_dir / "unknown.json").write_bytes(CONTENT)
    assert shared.dead() == ["dead"]
    assert not shared.remove_dead("alive")
    assert not shared.remove_dead("unknown")
    assert shared.remove_dead("dead")
    assert files(registry_dir) == {"alive.json", ".alive.owner", "unknown.json"}


def test_names_with_quotes_blanks_and_umlauts_make_the_round_trip(registry_dir: Path, me: Owner) -> None:
    name = 'büro it\'s "mine" $HOME `x`'
    shared = Registry(registry_dir)
    shared.publish(name, CONTENT, me)
    assert shared.holds(name, me.instance_id)
    shared.withdraw(name, me.instance_id)
    assert files(registry_dir) == set()
