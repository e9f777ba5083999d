"""The registry directory: what lies in it, how soon it is seen, and what becomes of bad and dead files."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opencode_fleet.transports import local_relay
from opencode_fleet.transports.base import Appeared, Change, Departed, Endpoint, ScanDone
from opencode_fleet.transports.local_relay import LocalRelay
from support.fleet.registry import register, registration
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

INTERVAL = 0.3
"""Seconds between two full scans: short, so that tests need not wait."""


class Watched:
    """A transport at work and what it has told so far."""

    def __init__(self, transport: LocalRelay) -> None:
        self.transport = transport
        self.changes: list[Change] = []
        self.present: dict[str, Endpoint] = {}

    async def watch(self) -> None:
        async for change in self.transport.changes():
            self.changes.append(change)
            match change:
                case Appeared(endpoint):
                    self.present[endpoint.name] = endpoint
                case Departed(name):
                    del self.present[name]

    async def has(self, *names: str) -> None:
        await eventually_async(lambda: set(self.present) == set(names), f"exactly {names}")

    async def scanned_again(self) -> None:
        """Wait until the directory was read once more in full."""
        before = self.transport._files
        await eventually_async(lambda: self.transport._files is not before, "another scan")


@asynccontextmanager
async def watching(
    directory: Path, *, interval: float = INTERVAL, ports: range = range(1024, 65536)
) -> AsyncIterator[Watched]:
    watched = Watched(LocalRelay(directory, ports=ports, discovery_interval=interval))
    task = asyncio.create_task(watched.watch())
    try:
        await eventually_async(lambda: task.done() or ScanDone() in watched.changes, "the first scan")
        yield watched
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_is_there_at_the_start_is_told_before_the_end_of_the_scan(registry_dir: Path) -> None:
    register(registry_dir, registration("a", 4096, cwd="/home/a", client="ann"))
    async with watching(registry_dir) as watched:
        assert isinstance(watched.changes[0], Appeared)
        endpoint = watched.changes[0].endpoint
        assert (endpoint.name, endpoint.url) == ("a", "http://127.0.0.1:4096")
        assert (endpoint.directory, endpoint.hostname, endpoint.client) == ("/home/a", "test-host", "ann")
        assert watched.changes[1:] == [ScanDone()]


async def test_a_change_is_seen_without_a_full_scan(registry_dir: Path) -> None:
    async with watching(registry_dir, interval=3600) as watched:
        register(registry_dir, registration("a", 4096))
        await watched.has("a")
        register(registry_dir, registration("b", 4097))
        await watched.has("a", "b")
        register(registry_dir, registration("a", 5000))
        await eventually_async(lambda: watched.present["a"].url.endswith(":5000"), "the new port")
        (registry_dir / "a.json").unlink()
        await watched.has("b")
        assert watched.changes[-1] == Departed("a", clean=False)


async def test_a_renewed_registration_is_told_although_it_says_the_same(registry_dir: Path) -> None:
    fields = registration("a", 4096)
    register(registry_dir, fields)
    async with watching(registry_dir, interval=3600) as watched:
        before = watched.present["a"]
        register(registry_dir, fields)
        await eventually_async(lambda: watched.present["a"] != before, "the renewal")


async def test_the_directory_may_come_later_vanish_and_come_back(registry_dir: Path) -> None:
    async with watching(registry_dir, interval=3600) as watched:
        register(registry_dir, registration("a", 4096))
        await watched.has("a")
        shutil.rmtree(registry_dir)
        await watched.has()
        register(registry_dir, registration("a", 4096))
        await watched.has("a")
        assert watched.transport.problems() == []


async def test_a_goodbye_is_told_as_a_clean_departure(registry_dir: Path) -> None:
    register(registry_dir, registration("a", 4096))
    async with watching(registry_dir, interval=3600) as watched:
        path = register(registry_dir, registration("a", 4096, closedAt="2026-11-24T17:00:00Z"))
        await watched.has()
        path.unlink()
        assert watched.changes[-1] == Departed("a", clean=True)


async def test_a_file_written_in_place_is_read_again_until_it_is_whole(registry_dir: Path) -> None:
    registry_dir.mkdir()
    content = json.dumps(registration("a", 4096))
    async with watching(registry_dir, interval=3600) as watched:
        with (registry_dir / "a.json").open("w") as file:
            file.write(content[:20])
            file.flush()
            await eventually_async(watched.transport.problems, "the half-written file")
            file.write(content[20:])
        await watched.has("a")
        assert watched.transport.problems() == []


async def test_a_file_that_could_not_be_read_is_taken_once_its_mode_is_mended(
    registry_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = register(registry_dir, registration("a", 4096))
    os.utime(path, (0, 0))

    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:  # root, who may run the tests, reads everything
        patch.setattr(local_relay, "read_registration_bytes", denied)
        async with watching(registry_dir) as watched:
            assert watched.transport.problems() == ["ignored 'a.json': Permission denied"]
            patch.undo()
            path.chmod(0o640)
            await watched.has("a")


async def test_a_directory_that_lists_but_cannot_be_entered_is_a_problem_and_no_end(
    registry_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(registry_dir, registration("a", 4096))

    def denied(_: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", denied)
        async with watching(registry_dir) as watched:
            assert watched.transport.problems() == ["ignored 'a.json': Permission denied"]
            patch.undo()
            await watched.has("a")


async def test_a_directory_that_cannot_be_read_keeps_what_was_known(
    registry_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(registry_dir, registration("a", 4096))

    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    async with watching(registry_dir) as watched:
        with monkeypatch.context() as patch:
            patch.setattr("opencode_fleet.transports.local_relay.os.scandir", denied)
            await eventually_async(watched.transport.problems, "the problem")
            assert "cannot be read: Permission denied" in watched.transport.problems()[0]
            assert set(watched.present) == {"a"}
        await eventually_async(lambda: not watched.transport.problems(), "the end of the problem")


async def test_a_file_in_place_of_the_directory_is_a_problem_that_passes(registry_dir: Path) -> None:
    registry_dir.write_text("not a directory")
    async with watching(registry_dir) as watched:
        assert "cannot be read: Not a directory" in watched.transport.problems()[0]
        registry_dir.unlink()
        register(registry_dir, registration("a", 4096))
        await watched.has("a")


async def test_whatever_else_lies_there_does_not_hide_the_good_ones(registry_dir: Path, tmp_path: Path) -> None:
    register(registry_dir, registration("good", 4096))
    elsewhere = register(tmp_path / "elsewhere", registration("linked", 4096))
    os.mkfifo(registry_dir / "fifo.json")
    (registry_dir / "directory.json").mkdir()
    (registry_dir / "zero.json").symlink_to("/dev/zero")
    (registry_dir / "linked.json").symlink_to(elsewhere)
    (registry_dir / "loop.json").symlink_to("loop.json")
    (registry_dir / "huge.json").write_bytes(b" " * 20_000)
    (registry_dir / "deep.json").write_bytes(b"[" * 8000)
    (registry_dir / "empty.json").touch()
    (registry_dir / "other-name.json").write_text(json.dumps(registration("good", 5000)))
    (registry_dir / "escape\x1b[2J.json").write_text("{}")
    (registry_dir / os.fsdecode(b"latin-\xfc.json")).write_text("{}")
    (registry_dir / "notes.txt").write_text(json.dumps(registration("notes", 4096)))
    (registry_dir / ".hidden.json").write_text(json.dumps(registration(".hidden", 4096)))
    async with watching(registry_dir) as watched:
        await watched.scanned_again()
        assert set(watched.present) == {"good"}
        assert watched.present["good"].url.endswith(":4096")
        problems = watched.transport.problems()
        assert len(problems) == 6
        assert problems[-1] == "ignored 6 more files that are no registrations"
        assert all("\x1b" not in problem for problem in problems)
    assert len(list(registry_dir.iterdir())) == 14


async def test_a_port_outside_the_configured_range_is_not_contacted(registry_dir: Path) -> None:
    register(registry_dir, registration("inside", 10_000))
    register(registry_dir, registration("outside", 9999))
    async with watching(registry_dir, ports=range(10_000, 10_001)) as watched:
        assert set(watched.present) == {"inside"}
        assert watched.transport.problems() == ["ignored 'outside.json': port: outside 10000-10000"]


async def test_ten_thousand_files_hide_neither_old_nor_new_registrations(registry_dir: Path) -> None:
    register(registry_dir, registration("zzz-old", 4096))
    async with watching(registry_dir) as watched:
        await watched.has("zzz-old")
        for number in range(local_relay.MAX_FILES + 100):
            (registry_dir / f"junk-{number}.json").touch()
        await eventually_async(watched.transport.problems, "the flood", within=60)
        register(registry_dir, registration("zzz-new", 4097))
        await watched.has("zzz-old", "zzz-new")
        assert watched.transport.problems()[0] == (
            "the registry directory has more than 10000 files; the others are ignored"
        )


async def test_registrations_beyond_the_largest_fleet_are_ignored_and_said(
    registry_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_relay, "MAX_INSTANCES", 2)
    for name in ("a", "b", "c"):
        register(registry_dir, registration(name, 4096))
    async with watching(registry_dir) as watched:
        assert len(watched.present) == 2
        assert watched.transport.problems() == ["1 registrations beyond 2 are ignored"]


async def refused_for(watched: Watched, name: str, checks: int, seconds: float) -> None:
    """Report `checks` refusals, and the last one only after `seconds`."""
    await refused_at(watched, watched.present[name], checks, seconds)


async def refused_at(watched: Watched, endpoint: Endpoint, checks: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    for _ in range(checks - 1):
        watched.transport.report_refused(endpoint)
    await eventually_async(lambda: time.monotonic() > until, "the time in which it is refused")
    watched.transport.report_refused(endpoint)


async def test_a_file_is_pruned_after_several_refusals_over_more_than_an_interval(registry_dir: Path) -> None:
    path = register(registry_dir, registration("dead", 4096))
    async with watching(registry_dir) as watched:
        await refused_for(watched, "dead", local_relay.REFUSALS_TO_PRUNE, INTERVAL * 1.1)
        assert not path.exists()
        await watched.has()
        assert watched.changes[-1] == Departed("dead", clean=False)


async def test_a_file_is_not_pruned_after_too_few_refusals_or_in_too_short_a_time(registry_dir: Path) -> None:
    path = register(registry_dir, registration("dead", 4096))
    async with watching(registry_dir, interval=3600) as watched:
        await refused_for(watched, "dead", 100, 0.05)
        assert path.exists()
    async with watching(registry_dir) as watched:
        await refused_for(watched, "dead", local_relay.REFUSALS_TO_PRUNE - 1, INTERVAL * 1.1)
        assert path.exists()


async def test_a_sign_of_life_in_between_starts_the_count_again(registry_dir: Path) -> None:
    path = register(registry_dir, registration("slow", 4096))
    async with watching(registry_dir) as watched:
        await refused_for(watched, "slow", local_relay.REFUSALS_TO_PRUNE - 1, INTERVAL * 1.1)
        watched.transport.report_alive(watched.present["slow"])
        watched.transport.report_refused(watched.present["slow"])
        assert path.exists()


async def test_a_file_that_changed_since_it_was_last_read_is_not_pruned(registry_dir: Path) -> None:
    fields = registration("back", 4096)
    register(registry_dir, fields)
    async with watching(registry_dir) as watched:
        before = watched.present["back"]
        await refused_for(watched, "back", local_relay.REFUSALS_TO_PRUNE - 1, INTERVAL * 1.1)
        path = register(registry_dir, fields)
        watched.transport.report_refused(before)
        assert path.exists()


async def test_refusals_of_an_older_registration_do_not_count_against_a_newer_one(registry_dir: Path) -> None:
    fields = registration("back", 4096)
    path = register(registry_dir, fields)
    async with watching(registry_dir) as watched:
        before = watched.present["back"]
        register(registry_dir, fields)
        await eventually_async(lambda: watched.present["back"] != before, "the new registration")
        await refused_at(watched, before, local_relay.REFUSALS_TO_PRUNE * 2, INTERVAL * 1.1)
        assert path.exists()


async def test_a_read_only_directory_is_normal(registry_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = register(registry_dir, registration("dead", 4096))

    def read_only(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", read_only)
    async with watching(registry_dir) as watched:
        await refused_for(watched, "dead", 10, INTERVAL * 1.1)
        assert path.exists()
        assert set(watched.present) == {"dead"}
        assert watched.transport.problems() == []


async def test_two_servers_on_one_directory_see_the_same_and_either_may_prune(registry_dir: Path) -> None:
    register(registry_dir, registration("a", 4096))
    register(registry_dir, registration("dead", 4097))
    async with watching(registry_dir) as one, watching(registry_dir) as other:
        await one.has("a", "dead")
        await other.has("a", "dead")
        gone = other.present["dead"]
        await refused_for(one, "dead", local_relay.REFUSALS_TO_PRUNE, INTERVAL * 1.1)
        await one.has("a")
        await other.has("a")
        for _ in range(local_relay.REFUSALS_TO_PRUNE):
            other.transport.report_refused(gone)
        register(registry_dir, registration("dead", 4097))
        await one.has("a", "dead")
        await other.has("a", "dead")


@pytest.mark.parametrize("mode", [0o777, 0o702])
async def test_a_directory_that_everybody_can_write_to_is_not_trusted(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "registry"
    register(directory, registration("laptop", 4096))
    directory.chmod(mode)
    relay = LocalRelay(directory, ports=range(1024, 65536), discovery_interval=60)
    assert await anext(aiter(relay.changes())) == ScanDone()
    (problem,) = relay.problems()
    assert "not trusted" in problem
    assert f"chmod o-w {directory}" in problem


async def test_a_directory_that_somebody_else_made_where_everybody_can_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    directory = tmp_path / "shared" / "registry"
    register(directory, registration("laptop", 4096))
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    if os.geteuid() == 0:
        os.chown(directory, owner, -1)
    else:  # who cannot give it away is somebody else instead
        monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    (tmp_path / "shared").chmod(0o1777)
    relay = LocalRelay(directory, ports=range(1024, 65536), discovery_interval=60)
    assert await anext(aiter(relay.changes())) == ScanDone()
    assert f"made by user {owner}" in relay.problems()[0]
    # In a place of root's, another user's directory is what a provisioned relay has.
    (tmp_path / "shared").chmod(0o755)
    provisioned = LocalRelay(directory, ports=range(1024, 65536), discovery_interval=60)
    assert isinstance(await anext(aiter(provisioned.changes())), Appeared)
