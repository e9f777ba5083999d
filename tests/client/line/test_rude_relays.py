"""One connection with a relay that is slow, silent, of another version, or means ill."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psutil
import pytest

from client.line.conftest import fake_relay, registration
from opencode_connected.line.connection import LineConnection
from opencode_connected.line.errors import LineError
from support.waiting import eventually_async

if TYPE_CHECKING:
    from opencode_connected.line.command import LineSettings
    from support.opencodes.fake_health import FakeHealth


async def test_banners_garbage_and_endless_lines_before_ready_are_ignored(settings: LineSettings) -> None:
    async with LineConnection(fake_relay(settings, "noise"), forward=0) as connection:
        await connection.open()

        assert (connection.port, connection.agent) == (10001, "fake")


async def test_a_relay_of_another_version_is_an_error_that_says_which_side_to_update(settings: LineSettings) -> None:
    async with LineConnection(fake_relay(settings, "version"), forward=0) as connection:
        with pytest.raises(LineError, match="speaks version 2") as error:
            await connection.open()

    assert error.value.permanent
    assert error.value.remedy == (
        "update opencode-relay on this machine: `git pull`, then `pipx install --force .` in its clone"
    )


async def test_a_relay_that_floods_is_hung_up_on(settings: LineSettings) -> None:
    async with LineConnection(fake_relay(settings, "flood"), forward=0) as connection:
        await connection.open()
        await connection.ended.wait()

        with pytest.raises(LineError, match="sends without end"):
            await connection.ping()


@pytest.mark.parametrize(("probe_seconds", "health"), [(0.5, "unverified"), (60.0, "failed")])
async def test_a_relay_that_gives_signs_of_life_may_take_its_time_with_a_pong(
    settings: LineSettings, monkeypatch: pytest.MonkeyPatch, probe_seconds: float, health: str
) -> None:
    monkeypatch.setattr("opencode_connected.line.connection._PONG_SECONDS", 1.0)
    monkeypatch.setattr("opencode_connected.line.liveness._PROBE_SECONDS", probe_seconds)
    async with LineConnection(fake_relay(settings, "beats"), forward=0) as connection:
        await connection.open()

        # So late a word on OpenCode's health is no word.
        assert (await connection.ping()).health == health


async def test_how_late_a_word_on_health_may_be_is_learnt_from_those_that_call_it_well(
    settings: LineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Any word is late as long as nothing is known of the line, and none is from then on.
    monkeypatch.setattr("opencode_connected.line.liveness._PROBE_SECONDS", 60.0)
    monkeypatch.setattr("opencode_connected.line.liveness._WAY_SECONDS", -60.0)
    async with LineConnection(fake_relay(settings, "sometimes-ok"), forward=0) as connection:
        await connection.open()

        assert [(await connection.ping()).health for _ in range(3)] == ["unverified", "ok", "failed"]


async def test_a_line_without_end_costs_no_memory(settings: LineSettings) -> None:
    async with LineConnection(fake_relay(settings, "endless"), forward=0) as connection:
        await connection.open()
        before = psutil.Process().memory_info().rss
        transferred = psutil.Process(connection._transport.get_pid()) if connection._transport else None
        assert transferred is not None
        start = transferred.io_counters().write_chars
        await eventually_async(lambda: transferred.io_counters().write_chars > start + 200_000_000, "200 MB came")

        assert psutil.Process().memory_info().rss < before + 30_000_000


async def test_a_name_that_no_relay_may_give_is_not_taken(
    settings: LineSettings, opencode: FakeHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opencode_connected.line.connection._ANSWER_SECONDS", 0.5)
    async with LineConnection(fake_relay(settings, "evil-name"), forward=0) as connection:
        await connection.open()

        with pytest.raises(LineError, match="does not answer"):
            await connection.register(registration(opencode))


async def test_a_relay_that_falls_silent_is_given_up(settings: LineSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opencode_connected.line.connection._PONG_SECONDS", 0.5)
    async with LineConnection(fake_relay(settings, "silent"), forward=0) as connection:
        await connection.open()

        with pytest.raises(LineError, match="the relay does not answer"):
            await connection.ping()


async def test_whatever_waits_learns_why_the_connection_ended(settings: LineSettings) -> None:
    async with LineConnection(fake_relay(settings, "silent"), forward=0) as connection:
        await connection.open()
        waiting = asyncio.create_task(connection.ping())
        await asyncio.wait({waiting}, timeout=0)
        connection.abort(LineError("somebody pulled the plug", hop="lost"))

        with pytest.raises(LineError, match="pulled the plug"):
            await waiting
        with pytest.raises(LineError, match="pulled the plug"):
            await connection.ping()
