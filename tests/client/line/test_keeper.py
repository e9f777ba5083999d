"""The keeper against a real relay, and every fault that the line must survive."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from client.line.conftest import line_settings, make_key
from client.line.held import Line, line
from opencode_connected.line.errors import LineError, LineNameTaken, LineRefused
from opencode_connected.line.keeper import LineKeeper
from opencode_connected.line.retry import RetrySchedule
from support.line.sshd import Sshd
from support.processes import has_ended, name_of, named
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_connected.line.command import LineSettings
    from support.opencodes.fake_health import FakeHealth


@pytest.fixture
def own_relay(tmp_path: Path) -> Any:
    with Sshd(tmp_path / "relay") as sshd:
        yield sshd


def read(registry_dir: Path, name: str = "laptop-api") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((registry_dir / f"{name}.json").read_bytes())
    return content


@pytest.mark.usefixtures("lasting_note")
async def test_it_connects_registers_and_says_goodbye(
    settings: LineSettings, opencode: FakeHealth, registry_dir: Path, relay: Sshd
) -> None:
    async with line(settings, opencode) as held:
        state = await held.keeper.first_contact(10)
        assert (state.phase, state.agent, state.error) == ("connected", "sh", None)

        assert await held.register() == "laptop-api"

        state = held.keeper.state
        assert (state.phase, state.name, state.health) == ("registered", "laptop-api", "ok")
        assert read(registry_dir)["port"] == state.port
        assert [event.kind for event in state.history] == held.kinds() == ["connected", "registered"]

    assert held.keeper.state.phase == "closed"
    assert "closedAt" in read(registry_dir)
    (registry_dir / ".read").touch()
    await eventually_async(lambda: relay.sessions() == [], "no session is left")
    await eventually_async(lambda: not list(registry_dir.glob("*.json")), "the note is gone")


async def test_an_unclean_end_leaves_nothing_either(
    settings: LineSettings, opencode: FakeHealth, registry_dir: Path, relay: Sshd
) -> None:
    async with line(settings, opencode) as held:
        await held.register()
        await held.keeper.close(clean=False)

        await eventually_async(lambda: not list(registry_dir.iterdir()), "the registration is gone")
        await eventually_async(lambda: relay.sessions() == [], "no session is left")


async def test_a_default_name_gives_way_and_comes_back_as_what_it_became(
    settings: LineSettings, opencode: FakeHealth
) -> None:
    async with (
        line(settings, opencode) as first,
        line(replace(settings, instance_id="a" * 32), opencode) as second,
        line(replace(settings, instance_id="b" * 32), opencode) as third,
    ):
        assert await first.register(name_is_default=True) == "laptop-api"
        assert await second.register(name_is_default=True) == "laptop-api-2"
        assert await third.register(name_is_default=True) == "laptop-api-3"
        assert "instead of 'laptop-api'" in second.events[-1].text

        await first.keeper.close()
        os.killpg(second.ssh(), signal.SIGKILL)
        await second.until("registered", reconnects=1)

        assert second.keeper.state.name == "laptop-api-2"
        assert second.kinds().count("renamed") == 1


async def test_an_explicit_name_that_is_taken_is_an_error_that_names_the_holder(
    settings: LineSettings, opencode: FakeHealth
) -> None:
    async with line(settings, opencode) as first, line(replace(settings, instance_id="a" * 32), opencode) as second:
        await first.register()

        with pytest.raises(LineNameTaken) as taken:
            await second.register()

        assert taken.value.holder.startswith("laptop (process ")
        assert second.keeper.state.phase == "connected"
        # The line is good for another try.
        assert await second.register("other") == "other"
        assert second.keeper.state.error is None


@pytest.mark.parametrize("fault", ["ssh", "session", "program", "relay"])
async def test_it_comes_back_with_one_listener_and_one_registration(
    fault: str, own_relay: Sshd, opencode: FakeHealth, registry_dir: Path
) -> None:
    async with line(line_settings(own_relay, opencode, registry_dir), opencode) as held:
        await held.register()
        for round_ in (1, 2, 3):
            if fault == "ssh":
                os.killpg(held.ssh(), signal.SIGKILL)
            elif fault == "session":
                own_relay.kill_sessions()
            elif fault == "program":
                pid = int((registry_dir / ".laptop-api.owner").read_text().split()[1])
                os.kill(pid, signal.SIGKILL)
            else:
                await asyncio.to_thread(own_relay.restart)

            await held.until("registered", reconnects=round_)

            assert read(registry_dir)["port"] == held.keeper.state.port
            await eventually_async(lambda: len(_listeners(own_relay)) == 1, "there is one listener")
            await eventually_async(  # the session that was lost may hold the name's lock while it leaves
                lambda: {path.name for path in registry_dir.iterdir()} == {"laptop-api.json", ".laptop-api.owner"},
                "there is one registration, and nothing beside it",
            )


def _listeners(relay: Sshd) -> list[int]:
    sessions = [process for process in relay.sessions() if name_of(process).startswith("sshd")]
    found = []
    for session in sessions:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [
                c.laddr.port for c in session.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr
            ]
    return found


async def test_a_relay_that_is_down_is_tried_several_times_a_second_and_reported_once(
    own_relay: Sshd, opencode: FakeHealth, registry_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    original = RetrySchedule.delay

    def delay(self: RetrySchedule, *, permanent: bool, took: float, least: float) -> float:
        delays.append(original(self, permanent=permanent, took=took, least=least))
        return delays[-1]

    monkeypatch.setattr(RetrySchedule, "delay", delay)
    async with line(line_settings(own_relay, opencode, registry_dir), opencode) as held:
        await held.register()
        own_relay.stop()
        await eventually_async(lambda: len(delays) >= 5, "five tries")
        state = held.keeper.state
        own_relay.start()
        await held.until("registered", reconnects=1)

    assert state.phase == "retrying"
    assert "refuses connections" in str(state.error)
    assert delays[0] <= 0.2
    assert all(later <= 0.45 for later in delays[1:])
    assert held.kinds() == ["connected", "registered", "lost", "lost", "connected", "registered", "closed"]


async def test_the_first_contact_tells_a_failure_at_once_and_the_line_comes_up_later(
    own_relay: Sshd, opencode: FakeHealth, registry_dir: Path
) -> None:
    own_relay.stop()
    async with line(line_settings(own_relay, opencode, registry_dir), opencode) as held:
        state = await held.keeper.first_contact(10)
        assert (state.phase, state.hop) == ("retrying", "network")
        assert state.remedy

        registering = asyncio.create_task(held.register())
        own_relay.start()

        assert await registering == "laptop-api"


async def test_what_only_a_person_can_mend_is_not_hammered(
    settings: LineSettings, opencode: FakeHealth, relay: Sshd, tmp_path: Path
) -> None:
    key = await asyncio.to_thread(make_key, tmp_path / "wrong")
    words = [str(key) if word == str(relay.client_key) else word for word in shlex.split(settings.ssh_command)]

    async with line(replace(settings, ssh_command=shlex.join(words)), opencode) as held:
        state = await held.keeper.first_contact(10)

        assert (state.phase, state.hop) == ("refused", "authentication")
        assert RetrySchedule().delay(permanent=True) == 60


async def test_a_command_that_is_none_is_said_at_once(settings: LineSettings, opencode: FakeHealth) -> None:
    keeper = LineKeeper(replace(settings, ssh_command="ssh 'vm"), print, opencode.healthy)

    with pytest.raises(LineError, match="No closing quotation"):
        await keeper.start()
    await keeper.close()


async def test_a_directory_that_is_not_safe_is_raised_to_whoever_registers(
    settings: LineSettings, opencode: FakeHealth, registry_dir: Path
) -> None:
    registry_dir.mkdir()
    registry_dir.chmod(0o777)

    async with line(settings, opencode) as held:
        with pytest.raises(LineRefused, match="may be written by others"):
            await held.register()

        assert held.keeper.state.phase == "connected"
        assert held.keeper.state.remedy


@pytest.mark.usefixtures("impatient")
async def test_a_full_disk_is_reported_and_the_registration_follows_when_there_is_room(
    settings: LineSettings, opencode: FakeHealth, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    await asyncio.to_thread(
        subprocess.run, ["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "tmpfs", str(disk)], check=True
    )
    try:
        with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"x" * 4096)
        async with line(replace(settings, registry_dir=str(disk)), opencode) as held:
            registering = asyncio.create_task(held.register())
            await eventually_async(lambda: held.keeper.state.error, "the error")
            assert held.keeper.state.error == f"cannot write to {disk} on the relay: No space left on device"
            assert held.keeper.state.phase == "connected"

            (disk / "filler").unlink()

            assert await registering == "laptop-api"
            assert held.keeper.state.error is None
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "-l", str(disk)], check=True)


@pytest.mark.usefixtures("impatient")
async def test_a_registration_that_was_swept_away_comes_back(
    settings: LineSettings, opencode: FakeHealth, registry_dir: Path
) -> None:
    async with line(settings, opencode) as held:
        await held.register()
        (registry_dir / "laptop-api.json").unlink()

        await eventually_async((registry_dir / "laptop-api.json").exists, "the registration")
        assert held.kinds() == ["connected", "registered"]


@pytest.mark.usefixtures("impatient")
async def test_a_name_that_was_lost_to_another_is_replaced(
    settings: LineSettings, opencode: FakeHealth, registry_dir: Path
) -> None:
    async with line(settings, opencode) as held:
        await held.register(name_is_default=True)
        # As if another had registered in the moment after a sweep. Its process is this one: it lives.
        other = f"{'a' * 32} {os.getpid()} \n"
        (registry_dir / ".laptop-api.owner").write_text(other)

        await eventually_async(lambda: held.keeper.state.name == "laptop-api-2", "another name")
        assert (registry_dir / ".laptop-api.owner").read_text() == other
        assert held.keeper.state.phase == "registered"


@pytest.mark.usefixtures("impatient")
async def test_an_opencode_that_does_not_answer_is_reported_and_the_line_kept(
    settings: LineSettings, opencode: FakeHealth
) -> None:
    async with line(settings, opencode) as held:
        await held.register()
        opencode.status = 0
        await eventually_async(lambda: held.keeper.state.health == "failed", "the failure")
        assert held.keeper.state.error == "OpenCode does not answer"

        opencode.status = 200
        await eventually_async(lambda: held.keeper.state.health == "ok", "the recovery")
        assert held.keeper.state.error is None
        assert held.keeper.state.reconnects == 0
        assert held.kinds() == ["connected", "registered", "trouble", "recovered"]


async def test_closing_while_it_connects_leaves_no_ssh_behind(settings: LineSettings, opencode: FakeHealth) -> None:
    for moment in range(8):
        held = Line(settings, opencode)
        await held.keeper.start()
        await asyncio.wait({asyncio.create_task(held.keeper.first_contact(moment * 0.05))})
        await held.keeper.close()

        assert all(has_ended(ssh) for ssh in named("ssh", psutil.Process().children()))


async def test_closing_does_not_wait_long_for_a_relay_that_hangs(
    settings: LineSettings, opencode: FakeHealth, registry_dir: Path
) -> None:
    async with line(settings, opencode) as held:
        await held.register()
        ssh = held.ssh()
        relay_program = int((registry_dir / ".laptop-api.owner").read_text().split()[1])
        os.kill(relay_program, signal.SIGSTOP)
        try:
            # It would hang as long as the relay does.
            async with asyncio.timeout(60):
                await held.keeper.close()
        finally:
            os.kill(relay_program, signal.SIGCONT)

        with pytest.raises(ProcessLookupError):
            os.killpg(ssh, 0)
