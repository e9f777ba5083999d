"""The relay program by itself, in the shells that `sh` may be: registrations, and who has a name."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client.line.conftest import INSTANCE_ID, SHELLS, registration
from client.line.relay_program import OTHER_ID, Program, dead_pid, names
from opencode_connected import processes
from opencode_connected.line import protocol
from support.waiting import eventually

if TYPE_CHECKING:
    from support.opencodes.fake_health import FakeHealth

HERE = Path(__file__).parent


def test_a_registration_is_written_as_the_contract_says(shell: str, registry_dir: Path, opencode: FakeHealth) -> None:
    what = registration(opencode, 'büro it\'s "mine" $HOME `x` *')

    with Program(registry_dir, shell) as program:
        assert program.ready == {"type": "ready", "v": 1, "agent": "sh", "peer": "192.0.2.10"}
        assert program.register(what) == {"type": "registered", "name": what.name, "health": "ok"}

        file = registry_dir / f"{what.name}.json"
        assert file.read_text("utf-8") == what.to_json() + "\n"
        assert file.stat().st_mode & 0o777 == 0o600
        assert registry_dir.stat().st_mode & 0o777 == 0o700
        owner, since = (registry_dir / f".{what.name}.owner").read_text("utf-8").splitlines()
        owner_id, pid, start = owner.split(" ")
        assert (owner_id, int(pid)) == (INSTANCE_ID, program.process.pid)
        assert re.fullmatch(r"[A-Z][a-z]{2}_[A-Z][a-z]{2}_\d+_\d\d:\d\d:\d\d_\d{4}", start)
        assert since == processes.since_of(program.process.pid) != ""
        assert names(registry_dir) == {file.name, f".{what.name}.owner"}

        assert program.ask(protocol.ping(7)) == {"type": "pong", "n": 7, "health": "ok"}
        assert program.ask(protocol.QUERY) == {"type": "registration", "file": json.loads(what.to_json())}
        assert program.receive() == {"type": "end"}
        assert program.ask(protocol.probe(opencode.port)) == {"type": "probed", "port": opencode.port, "health": "ok"}


def test_the_end_of_the_input_takes_the_registration_back(
    shell: str, registry_dir: Path, opencode: FakeHealth
) -> None:
    with Program(registry_dir, shell) as program:
        program.register(registration(opencode))
        program.end()

    assert names(registry_dir) == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_takes_the_registration_back(
    shell: str, number: signal.Signals, registry_dir: Path, opencode: FakeHealth
) -> None:
    with Program(registry_dir, shell) as program:
        program.register(registration(opencode))
        program.process.send_signal(number)
        program.process.wait()

    assert names(registry_dir) == set()


@pytest.mark.usefixtures("lasting_note")
def test_a_goodbye_leaves_a_note_for_a_moment_and_frees_the_name_at_once(
    shell: str, registry_dir: Path, opencode: FakeHealth
) -> None:
    with Program(registry_dir, shell) as program:
        program.register(registration(opencode))
        program.send(protocol.BYE)
        assert program.process.wait() == 0

        assert names(registry_dir) == {"laptop-api.json"}
        note = json.loads((registry_dir / "laptop-api.json").read_bytes())
        assert set(note) == {*json.loads(registration(opencode).to_json()), "closedAt"}
        assert (
            abs(time.time() - time.mktime(time.strptime(note["closedAt"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 60
        )
        (registry_dir / ".read").touch()
        eventually(lambda: names(registry_dir) == {".read"}, "the note is gone")


@pytest.mark.usefixtures("lasting_note")
def test_whoever_registers_during_the_goodbye_keeps_the_file(registry_dir: Path, opencode: FakeHealth) -> None:
    with Program(registry_dir) as leaving, Program(registry_dir) as coming:
        leaving.register(registration(opencode))
        leaving.send(protocol.BYE)
        leaving.process.wait()
        assert coming.register(registration(opencode), OTHER_ID)["type"] == "registered"
        (registry_dir / ".read").touch()
        eventually(leaving.is_gone, "the remover of the note is gone")

        assert names(registry_dir) == {"laptop-api.json", ".laptop-api.owner", ".read"}


def test_a_reconnect_takes_over_without_a_moment_without_a_registration(
    shell: str, registry_dir: Path, opencode: FakeHealth
) -> None:
    renewed = registration(opencode).model_copy(update={"connected_at": "2026-11-24T17:00:00Z"})
    with Program(registry_dir, shell) as old, Program(registry_dir, shell) as new:
        old.register(registration(opencode))

        assert new.register(renewed)["type"] == "registered"

        old.process.wait()
        assert (registry_dir / "laptop-api.json").read_text() == renewed.to_json() + "\n"
        assert (registry_dir / ".laptop-api.owner").read_text().split()[1] == str(new.process.pid)
        assert new.ask(protocol.ping(1))["health"] == "ok"


def test_an_old_connection_that_wakes_up_late_gives_way(registry_dir: Path, opencode: FakeHealth) -> None:
    with Program(registry_dir) as old, Program(registry_dir) as new:
        old.register(registration(opencode))
        old.process.send_signal(signal.SIGSTOP)
        new.register(registration(opencode))
        os.kill(old.process.pid, signal.SIGCONT)

        old.process.wait()
        assert new.ask(protocol.ping(1))["health"] == "ok"
        assert (registry_dir / ".laptop-api.owner").read_text().split()[1] == str(new.process.pid)


def test_a_living_holder_keeps_the_name_and_is_named(shell: str, registry_dir: Path, opencode: FakeHealth) -> None:
    with Program(registry_dir, shell) as holder, Program(registry_dir, shell) as second:
        holder.register(registration(opencode))

        refusal = second.register(registration(opencode), OTHER_ID)

        assert refusal["code"] == "name-taken"
        assert refusal["holder"] == f"laptop (process {holder.process.pid} on the relay)"
        assert (registry_dir / ".laptop-api.owner").read_text().split()[0] == INSTANCE_ID
        # The connection is as good as before.
        assert second.register(registration(opencode, "laptop-api-2"), OTHER_ID)["type"] == "registered"
        second.end()
        assert names(registry_dir) == {"laptop-api.json", ".laptop-api.owner"}


def test_a_clock_that_is_set_takes_no_name_from_a_living_owner(
    shell: str, tmp_path: Path, registry_dir: Path, opencode: FakeHealth
) -> None:
    set_ahead = tmp_path / "bin"
    set_ahead.mkdir()
    (set_ahead / "ps").symlink_to(HERE / "fake_ps.sh")
    path = f"{set_ahead}:{os.environ['PATH']}"
    with Program(registry_dir, shell) as holder, Program(registry_dir, shell, path=path) as second:
        holder.register(registration(opencode))

        assert second.register(registration(opencode), OTHER_ID)["code"] == "name-taken"

        holder.process.kill()
        holder.process.wait()
        assert second.register(registration(opencode), OTHER_ID)["type"] == "registered"


@pytest.mark.parametrize("is_alive", [True, False])
def test_the_owner_file_of_a_launcher_of_before_counts_as_it_did(
    is_alive: bool, shell: str, registry_dir: Path, opencode: FakeHealth
) -> None:
    registry_dir.mkdir(mode=0o700)
    start = processes.start_of(os.getpid()) if is_alive else "Thu_Jan_1_00:00:00_1970"
    (registry_dir / ".laptop-api.owner").write_text(f"{OTHER_ID} {os.getpid()} {start}\n")

    with Program(registry_dir, shell) as program:
        answer = program.register(registration(opencode))

    assert answer["type"] == ("error" if is_alive else "registered")


@pytest.mark.parametrize("owner", ["dead", "recycled", "recycled since", "garbage", "empty"])
def test_a_name_whose_owner_is_dead_is_free(shell: str, owner: str, registry_dir: Path, opencode: FakeHealth) -> None:
    registry_dir.mkdir(mode=0o700)
    content = {
        "dead": f"{OTHER_ID} {dead_pid()} Tue_Nov_24_16:00:00_2026",
        # A living process, but not the one that registered.
        "recycled": f"{OTHER_ID} {os.getpid()} Thu_Jan_1_00:00:00_1970",
        "recycled since": f"{OTHER_ID} {os.getpid()} {processes.start_of(os.getpid())}\n{'0' * 36}:1",
        "garbage": "-1 $(id) ;;",
        "empty": "",
    }[owner]
    (registry_dir / ".laptop-api.owner").write_text(content + "\n")
    (registry_dir / "laptop-api.json").write_text("{}\n")

    with Program(registry_dir, shell) as program:
        # busybox's ps knows no start times, but the system's is found first.
        assert program.register(registration(opencode))["type"] == "registered"


def test_what_was_swept_away_is_written_again_on_the_next_ping(
    shell: str, registry_dir: Path, opencode: FakeHealth
) -> None:
    with Program(registry_dir, shell) as program:
        program.register(registration(opencode))
        written = (registry_dir / "laptop-api.json").read_bytes()

        for sweep in (
            (registry_dir / "laptop-api.json").unlink,
            (registry_dir / ".laptop-api.owner").unlink,
            lambda: shutil.rmtree(registry_dir),
            lambda: (registry_dir / "laptop-api.json").write_text("{}\n"),
        ):
            sweep()
            assert program.ask(protocol.ping(1)) == {"type": "pong", "n": 1, "health": "ok"}
            assert (registry_dir / "laptop-api.json").read_bytes() == written
            assert names(registry_dir) == {"laptop-api.json", ".laptop-api.owner"}


def test_a_name_that_another_took_meanwhile_is_reported_and_left_to_it(
    registry_dir: Path, opencode: FakeHealth
) -> None:
    with Program(registry_dir) as first, Program(registry_dir) as second:
        first.register(registration(opencode))
        (registry_dir / ".laptop-api.owner").unlink()
        second.register(registration(opencode), OTHER_ID)

        assert first.ask(protocol.ping(1))["code"] == "name-taken"
        assert first.receive()["type"] == "pong"
        first.end()
        assert (registry_dir / ".laptop-api.owner").read_text().split()[0] == OTHER_ID


@pytest.mark.parametrize("stale", ["dead holder", "no holder"])
def test_the_lock_of_a_dead_process_is_broken(
    shell: str, stale: str, registry_dir: Path, opencode: FakeHealth
) -> None:
    lock = registry_dir / ".laptop-api.lock"
    lock.mkdir(parents=True)
    registry_dir.chmod(0o700)
    if stale == "dead holder":
        (lock / "pid").write_text(f"{dead_pid()}\n")

    with Program(registry_dir, shell) as program:
        assert program.register(registration(opencode))["type"] == "registered"

    assert not lock.exists()


def test_the_lock_of_a_living_process_is_waited_for(registry_dir: Path, opencode: FakeHealth) -> None:
    lock = registry_dir / ".laptop-api.lock"
    lock.mkdir(parents=True)
    registry_dir.chmod(0o700)
    (lock / "pid").write_text(f"{os.getpid()}\n")

    with Program(registry_dir) as program:
        program.send(protocol.hello(INSTANCE_ID, registration(opencode)))
        eventually(lambda: opencode.requests == 1, "the program got as far as the lock")
        assert names(registry_dir) == {".laptop-api.lock"}
        shutil.rmtree(lock)

        assert program.receive()["type"] == "registered"


def test_of_many_that_want_one_name_at_once_exactly_one_gets_it(registry_dir: Path, opencode: FakeHealth) -> None:
    programs = [Program(registry_dir, SHELLS[n % len(SHELLS)]) for n in range(9)]
    for n, program in enumerate(programs):
        program.send(protocol.hello(f"{n:032x}", registration(opencode)))
    answers = [program.receive() for program in programs]
    for program in programs:
        program.__exit__(None, None, None)

    assert sorted(answer["type"] for answer in answers) == ["error"] * 8 + ["registered"]
    assert {answer["code"] for answer in answers if answer["type"] == "error"} == {"name-taken"}
