"""The relay program by itself, in the shells that `sh` may be, without ssh around it."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from client.line.conftest import INSTANCE_ID, registration
from opencode_connected.line import protocol
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from opencode_connected.registration import Registration
    from support.fake_health import FakeHealth

OTHER_ID = "f" * 32
SHELLS = ["dash", "bash --posix", "busybox sh"]


class Program:
    """One run of the relay program: what the launcher sends, and what comes back."""

    def __init__(self, directory: Path | str, shell: str = "dash", *, path: str | None = None) -> None:
        script = shlex.split(protocol.LOADER.removeprefix("exec "))[2]
        self.process = subprocess.Popen(
            [*shlex.split(shell), "-c", script],
            executable=shutil.which(shlex.split(shell)[0]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
            env={"PATH": path or os.environ["PATH"], "SSH_CONNECTION": "192.0.2.7 50000 192.0.2.10 22"},
        )
        self.send(protocol.program(str(directory)))
        self.ready = self.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the relay program ended"
        message = json.loads(line)
        assert isinstance(message, dict)
        assert protocol.decode(line.strip()) is not None, f"not what the launcher understands: {line!r}"
        return message

    def ask(self, line: bytes) -> dict[str, Any]:
        self.send(line)
        return self.receive()

    def register(self, what: Registration, instance_id: str = INSTANCE_ID) -> dict[str, Any]:
        return self.ask(protocol.hello(instance_id, what))

    def is_gone(self) -> bool:
        """Tell whether not one process of this run is left."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def end(self) -> int:
        """Close its input, as the death of the launcher does; return its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait()


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_registration_is_written_as_the_contract_says(shell: str, registry_dir: Path, opencode: FakeHealth) -> None:
    what = registration(opencode, 'büro it\'s "mine" $HOME `x` *')

    with Program(registry_dir, shell) as program:
        assert program.ready == {"type": "ready", "v": 1, "agent": "sh", "peer": "192.0.2.10"}
        assert program.register(what) == {"type": "registered", "name": what.name, "health": "ok"}

        file = registry_dir / f"{what.name}.json"
        assert file.read_text("utf-8") == what.to_json() + "\n"
        assert file.stat().st_mode & 0o777 == 0o600
        assert registry_dir.stat().st_mode & 0o777 == 0o700
        owner_id, pid, start = (registry_dir / f".{what.name}.owner").read_text("utf-8").split(" ")
        assert (owner_id, int(pid)) == (INSTANCE_ID, program.process.pid)
        assert re.fullmatch(r"[A-Z][a-z]{2}_[A-Z][a-z]{2}_\d+_\d\d:\d\d:\d\d_\d{4}\n", start)
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


@pytest.mark.parametrize("owner", ["dead", "recycled", "garbage", "empty"])
def test_a_name_whose_owner_is_dead_is_free(shell: str, owner: str, registry_dir: Path, opencode: FakeHealth) -> None:
    registry_dir.mkdir(mode=0o700)
    content = {
        "dead": f"{OTHER_ID} {_dead_pid()} Tue_Nov_24_16:00:00_2026",
        # A living process, but not the one that registered.
        "recycled": f"{OTHER_ID} {os.getpid()} Thu_Jan_1_00:00:00_1970",
        "garbage": "-1 $(id) ;;",
        "empty": "",
    }[owner]
    (registry_dir / ".laptop-api.owner").write_text(content + "\n")
    (registry_dir / "laptop-api.json").write_text("{}\n")

    with Program(registry_dir, shell) as program:
        # busybox's ps knows no start times, but the system's is found first.
        assert program.register(registration(opencode))["type"] == "registered"


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


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


@pytest.mark.parametrize("stale", ["dead holder", "no holder"])
def test_the_lock_of_a_dead_process_is_broken(
    shell: str, stale: str, registry_dir: Path, opencode: FakeHealth
) -> None:
    lock = registry_dir / ".laptop-api.lock"
    lock.mkdir(parents=True)
    registry_dir.chmod(0o700)
    if stale == "dead holder":
        (lock / "pid").write_text(f"{_dead_pid()}\n")

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


TOOLS = {
    "curl": ["curl"],
    "GNU wget": ["wget"],
    "python3": [sys.executable + ":python3"],
    "perl": ["perl"],
    "nc": ["nc"],
}
BASICS = ["cat", "date", "grep", "head", "id", "ls", "mkdir", "mv", "ps", "rm", "sed", "sleep", "tr"]


def bin_with(directory: Path, tools: list[str], basics: list[str] = BASICS) -> str:
    """Make a PATH that holds only what a bare system has, and `tools`. `busybox:nc`: busybox under that name."""
    directory.mkdir()
    for tool in [*basics, *tools]:
        program, _, applet = tool.partition(":")
        where = shutil.which(program)
        assert where is not None, f"{program} must be installed for this test"
        (directory / (applet or program)).symlink_to(where)
    return str(directory)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_tunnel_is_probed_with_whatever_the_relay_has(
    tool: str, tmp_path: Path, registry_dir: Path, opencode: FakeHealth
) -> None:
    with Program(registry_dir, path=bin_with(tmp_path / "bin", TOOLS[tool])) as program:
        for status, health in ((200, "ok"), (401, "ok"), (500, "failed"), (302, "failed"), (0, "failed")):
            opencode.status = status
            probed = program.ask(protocol.probe(opencode.port))
            assert (status, probed["health"]) == (status, health)


def test_a_tool_that_crashes_or_lacks_options_is_passed_over(
    tmp_path: Path, registry_dir: Path, opencode: FakeHealth
) -> None:
    path = Path(bin_with(tmp_path / "bin", [sys.executable + ":python3"]))
    for tool, script in (("curl", "kill -SEGV $$"), ("wget", "echo 'Usage: wget [-q] URL' >&2; exit 1")):
        (path / tool).write_text(f"#!/bin/sh\n{script}\n")
        (path / tool).chmod(0o755)

    with Program(registry_dir, path=str(path)) as program:
        assert program.ask(protocol.probe(opencode.port))["health"] == "ok"


def test_a_relay_without_any_tool_registers_unverified(
    tmp_path: Path, registry_dir: Path, opencode: FakeHealth
) -> None:
    with Program(registry_dir, path=bin_with(tmp_path / "bin", [])) as program:
        assert program.register(registration(opencode))["health"] == "unverified"
        assert program.ask(protocol.ping(1))["health"] == "unverified"


def test_a_relay_that_is_nothing_but_busybox_will_do(
    tmp_path: Path, registry_dir: Path, opencode: FakeHealth
) -> None:
    path = bin_with(tmp_path / "bin", ["busybox:nc"], [f"busybox:{tool}" for tool in BASICS])
    with Program(registry_dir, "busybox sh", path=path) as old, Program(registry_dir, "busybox sh", path=path) as new:
        assert old.register(registration(opencode))["health"] == "ok"
        assert new.register(registration(opencode), OTHER_ID)["code"] == "name-taken"
        assert new.register(registration(opencode))["health"] == "ok"
        assert old.ask(protocol.QUERY)["file"]["name"] == "laptop-api"
        assert old.receive() == {"type": "end"}
        # Its ps knows no start times, so the older session is not ended by a pid that may be anybody's: it gives way.
        old.send(protocol.ping(1))
        old.process.wait()
        shutil.rmtree(registry_dir)
        assert new.ask(protocol.ping(1)) == {"type": "pong", "n": 1, "health": "ok"}
        new.send(protocol.BYE)
        assert new.process.wait() == 0
        eventually(lambda: not names(registry_dir), "the note is gone")


def test_a_tunnel_that_does_not_carry_is_not_registered(shell: str, registry_dir: Path, opencode: FakeHealth) -> None:
    opencode.status = 0
    with Program(registry_dir, shell) as program:
        assert program.register(registration(opencode))["code"] == "not-carrying"
        assert not registry_dir.exists()
        opencode.status = 401
        assert program.register(registration(opencode))["type"] == "registered"


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_a_port_that_listens_beyond_loopback_is_refused(shell: str, address: str, registry_dir: Path) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener, Program(registry_dir, shell) as program:
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]

        assert program.ask(protocol.probe(port))["code"] == "exposed"


def test_a_port_on_both_loopback_addresses_is_not_refused(registry_dir: Path, opencode: FakeHealth) -> None:
    with socket.socket(socket.AF_INET6) as listener, Program(registry_dir) as program:
        listener.bind(("::1", opencode.port))
        listener.listen()

        assert program.ask(protocol.probe(opencode.port))["health"] == "ok"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (('"v":1', '"v":2'), "bad-hello"),
        ((INSTANCE_ID, "x" * 32), "bad-hello"),
        ((INSTANCE_ID, "0" * 31), "bad-hello"),
        (('"name":"laptop-api"', '"name":""'), "bad-name"),
        (('"name":"laptop-api"', '"name":".laptop"'), "bad-name"),
        (('"name":"laptop-api"', '"name":"../laptop"'), "bad-name"),
        (('"name":"laptop-api"', '"name":"a\\\\b"'), "bad-name"),
        (('"hostname":', '"host":'), "bad-hello"),
        (('"port":', '"port":0'), "bad-port"),
        (('"port":', '"port":9'), "bad-port"),
        (('"port":', '"port":1e'), "bad-port"),
    ],
)
def test_a_hello_that_does_not_follow_the_contract_is_refused(
    shell: str, change: tuple[str, str], code: str, registry_dir: Path, opencode: FakeHealth
) -> None:
    hello = protocol.hello(INSTANCE_ID, registration(opencode)).decode()
    assert change[0] in hello

    with Program(registry_dir, shell) as program:
        assert program.ask(hello.replace(*change).encode())["code"] == code
        assert not registry_dir.exists()


def test_noise_and_later_messages_are_ignored(shell: str, registry_dir: Path) -> None:
    with Program(registry_dir, shell) as program:
        program.send(b"\n\\c %s $(id) `id` *\n{}\n\xff\xfe\n" + b'{"type":"later","n":1}\n{"type":"ping","n":-1}\n')

        assert program.ask(protocol.ping(3)) == {"type": "pong", "n": 3, "health": "unverified"}


def test_a_query_shows_regular_files_only(shell: str, registry_dir: Path, opencode: FakeHealth) -> None:
    registry_dir.mkdir(mode=0o700)
    os.mkfifo(registry_dir / "fifo.json")
    (registry_dir / "directory.json").mkdir()
    (registry_dir / "link.json").symlink_to("/etc/passwd")
    (registry_dir / "garbage.json").write_text("garbage")
    (registry_dir / "huge.json").write_text('{"name":"' + "x" * 100_000 + '"}')
    (registry_dir / "good.json").write_text(registration(opencode, "good").to_json() + "\n")

    with Program(registry_dir, shell) as program:
        assert program.ask(protocol.QUERY)["file"]["name"] == "good"
        assert program.receive() == {"type": "end"}


class Clock:
    """The watchdog's clock, put in the place of `sleep` in a directory of tools: `sleep 3` is over at each `tick`."""

    def __init__(self, tools: Path) -> None:
        self._begun = tools / "begun"
        self._begun.touch()
        hands = tools / "hands"
        os.mkfifo(hands)
        self._hands = os.open(hands, os.O_RDWR)
        sleep = tools / "sleep"
        sleep.unlink()
        sleep.write_text(f'#!/bin/sh\necho >>"{self._begun}"\nread -r _ <"{hands}"\n')
        sleep.chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._hands)

    def ticks(self) -> int:
        """How many sleeps have begun."""
        return self._begun.read_text().count("\n")

    def tick(self) -> None:
        """End a sleep, and wait until the next one has begun."""
        eventually(self.ticks, "the first sleep")
        before = self.ticks()
        os.write(self._hands, b"\n")
        eventually(lambda: self.ticks() > before, "the next sleep")

    def release(self) -> None:
        """Let the time pass by itself."""
        os.write(self._hands, b"\n" * 100)


def test_silence_ends_the_program_and_messages_keep_it(
    tmp_path: Path, registry_dir: Path, opencode: FakeHealth
) -> None:
    tools = Path(bin_with(tmp_path / "bin", ["curl"]))
    with Clock(tools) as clock, Program(registry_dir, path=str(tools)) as program:
        program.register(registration(opencode))
        for n in range(12):  # more than two rounds of its patience
            clock.tick()
            assert program.ask(protocol.ping(n))["type"] == "pong"
        for _ in range(4):
            clock.tick()
        assert program.process.poll() is None
        assert names(registry_dir) == {"laptop-api.json", ".laptop-api.owner"}

        clock.release()
        program.process.wait()
        assert clock.ticks() == 12 + 6, "the last message counts until the end of its tick, and five pass in silence"
        assert names(registry_dir) == set()


def test_nothing_holds_the_channel_when_the_program_is_killed(
    shell: str, registry_dir: Path, opencode: FakeHealth
) -> None:
    with Program(registry_dir, shell) as program:
        program.register(registration(opencode))
        assert program.process.stdout is not None
        program.process.kill()

        # Readable is the end of the file here: the last process that held it is gone. sshd waits for that.
        assert select.select([program.process.stdout], [], [], 2)[0]


def test_nothing_of_the_program_outlives_it(registry_dir: Path, opencode: FakeHealth) -> None:
    with Program(registry_dir) as program:
        program.register(registration(opencode))
        program.end()

        eventually(program.is_gone, "the watchdog's last tick of 3 s is over")
