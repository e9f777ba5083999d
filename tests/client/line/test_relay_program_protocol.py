"""What the relay program is told, and when it ends."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from client.line.conftest import INSTANCE_ID, registration
from client.line.relay_program import Program, bin_with, names
from opencode_connected.line import protocol
from support.waiting import eventually

if TYPE_CHECKING:
    from types import TracebackType

    from support.opencodes.fake_health import FakeHealth


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
    """The watchdog's clock, put in the place of `sleep` in a directory of tools: `sleep 2` is over at each `tick`."""

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


def test_it_gives_a_sign_of_life_at_every_tick_that_no_launcher_takes_for_an_answer(
    shell: str, tmp_path: Path, registry_dir: Path
) -> None:
    tools = Path(bin_with(tmp_path / "bin", []))
    with Clock(tools) as clock, Program(registry_dir, shell, path=str(tools)) as program:
        for _ in range(3):
            clock.tick()
        assert program.ask(protocol.ping(1)) == {"type": "pong", "n": 1, "health": "unverified"}
        assert program.beats == 4, "one at the beginning, and one at each tick"


class Kernel:
    """What `ss` says, put into a directory of tools: how much came on the connection of `Program`, and on others."""

    def __init__(self, tools: Path) -> None:
        self._said = tools / "said"
        self._asked = tools / "asked"
        self.received(0)
        ss = tools / "ss"
        ss.write_text(f'#!/bin/sh\necho "$*" >"{self._asked}"\ncat "{self._said}"\n')
        ss.chmod(0o755)

    def received(self, number: int) -> None:
        """Say that so many bytes came."""
        self._said.write_text(
            "ESTAB 0 0 192.0.2.10:22 198.51.100.7:50000\n\t cubic bytes_received:999999999 segs_in:1\n"
            f"ESTAB 0 0 [::ffff:192.0.2.10]:22 [::ffff:192.0.2.7]:50000\n\t cubic bytes_received:{number} segs_in:1\n"
        )

    def asked(self) -> str:
        """Return what it was asked last; nothing if it never was."""
        return self._asked.read_text() if self._asked.exists() else ""


def test_data_on_the_connection_keeps_the_program_and_keep_alives_do_not(
    shell: str, tmp_path: Path, registry_dir: Path
) -> None:
    tools = Path(bin_with(tmp_path / "bin", []))
    kernel = Kernel(tools)
    with Clock(tools) as clock, Program(registry_dir, shell, path=str(tools)) as program:
        assert program.ask(protocol.ping(1))["n"] == 1
        clock.tick()
        clock.tick()
        assert kernel.asked() == "", "it is a question for who says nothing"
        for number in range(12):  # more than two rounds of its patience
            kernel.received(number * 1024)
            clock.tick()
        assert kernel.asked() == "-Htin sport = :22 and dport = :50000\n"
        assert program.process.poll() is None

        ticks = clock.ticks()
        kernel.received(11 * 1024 + 1000)
        clock.release()
        program.process.wait()
        assert clock.ticks() - ticks <= 6


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
