"""What a launcher is told by a relay that is provisioned, and how it gets along with one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from client.line.conftest import line_settings, registration
from client.line.forced import provisioned
from opencode_connected.line.errors import LineError, LineRefused
from opencode_connected.line.inquiry import probe, query
from opencode_connected.line.keeper import LineKeeper
from support.ports import free_port
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from opencode_connected.line.command import LineSettings
    from support.opencodes.fake_health import FakeHealth


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that a provisioned relay has."""
    path = tmp_path / "it's a relay.json"
    path.write_text("{}")
    return path


@pytest.mark.parametrize("ask", [probe, query])
async def test_an_ordinary_account_of_a_provisioned_relay_is_told_how_to_enrol_and_registers_nothing(
    ask: Callable[[LineSettings], Awaitable[object]], settings: LineSettings, mark: Path, registry_dir: Path
) -> None:
    with pytest.raises(LineRefused, match="this relay is provisioned") as refused:
        await ask(replace(settings, provisioned_mark=str(mark)))

    assert (refused.value.code, refused.value.hop, refused.value.permanent) == ("not-allowed", "account", True)
    assert "`opencode-connected enroll`" in refused.value.remedy
    assert not registry_dir.exists()


async def test_a_user_who_names_a_directory_is_let_past_the_mark(settings: LineSettings) -> None:
    assert settings.provisioned_mark is None
    assert (await probe(settings)).health == "ok"


async def test_a_mark_that_is_not_there_changes_nothing(settings: LineSettings, tmp_path: Path) -> None:
    assert (await probe(replace(settings, provisioned_mark=str(tmp_path / "none")))).health == "ok"


@pytest.mark.parametrize(
    ("code", "permanent", "told"),
    [("not-allowed", True, "`opencode-connected enroll`"), ("write-failed", False, "tries again by itself")],
)
async def test_an_error_in_place_of_ready_is_the_reason_that_is_told(
    code: str, permanent: bool, told: str, tmp_path: Path, opencode: FakeHealth
) -> None:
    says = f'{{"type":"error","code":"{code}","message":"the words of the agent"}}'
    with provisioned(tmp_path / "relay", says=says) as relay, pytest.raises(LineRefused) as refused:
        await query(line_settings(relay, opencode, ""))
    assert (str(refused.value), refused.value.code) == ("the words of the agent", code)
    assert (refused.value.hop, refused.value.permanent) == ("account", permanent)
    assert told in refused.value.remedy


async def test_a_key_that_is_not_enrolled_any_more_is_replaced_by_another(
    tmp_path: Path, opencode: FakeHealth
) -> None:
    says = '{"type":"error","code":"not-allowed","message":"this key is not enrolled any more"}'
    with provisioned(tmp_path / "relay", says=says) as relay, pytest.raises(LineRefused) as refused:
        await query(replace(line_settings(relay, opencode, ""), is_enrolled=True))
    assert "`opencode-connected enroll --new-key`" in refused.value.remedy


async def test_a_launcher_that_knows_no_block_gets_a_free_port_of_it(tmp_path: Path, opencode: FakeHealth) -> None:
    free = free_port()
    with provisioned(tmp_path / "relay", opencode.port, free) as relay:
        probed = await probe(line_settings(relay, opencode, ""))
    assert (probed.port, probed.client, probed.agent) == (free, "laptop", "fake")


async def test_a_launcher_that_knows_an_old_block_goes_over_to_the_new_one(
    tmp_path: Path, opencode: FakeHealth
) -> None:
    free, old = free_port(), free_port()
    with provisioned(tmp_path / "relay", free) as relay:
        assert (await probe(replace(line_settings(relay, opencode, ""), ports=(old,)))).port == free


async def test_a_block_that_is_used_up_is_said_so(tmp_path: Path, opencode: FakeHealth) -> None:
    with provisioned(tmp_path / "relay", opencode.port) as relay, pytest.raises(LineError, match="in use") as error:
        await probe(replace(line_settings(relay, opencode, ""), ports=(opencode.port,)))
    assert error.value.hop == "forward"
    assert not error.value.permanent


async def test_the_line_stays_with_its_port_when_it_comes_back(tmp_path: Path, opencode: FakeHealth) -> None:
    block = [free_port() for _ in range(5)]
    with provisioned(tmp_path / "relay", *block) as relay:
        keeper = LineKeeper(line_settings(relay, opencode, ""), lambda _: None, opencode.healthy)
        await keeper.start()
        try:
            await keeper.register(registration(opencode), name_is_default=True)
            port = keeper.state.port
            assert port in block
            relay.kill_sessions()
            await eventually_async(
                lambda: (keeper.state.reconnects, keeper.state.phase) == (1, "registered"), "it is back"
            )
            assert keeper.state.port == port
        finally:
            await keeper.close()


@pytest.mark.parametrize(
    ("name", "is_default", "registered"),
    [
        ("api", True, "laptop-api"),
        ("laptop-api", True, "laptop-api"),
        ("laptop", False, "laptop"),
        ("api", False, "laptop-api"),
        ("x" * 64, True, f"laptop-{'x' * 57}"),
    ],
)
async def test_an_instance_is_called_by_its_machines_name_first(
    name: str, is_default: bool, registered: str, tmp_path: Path, opencode: FakeHealth
) -> None:
    with provisioned(tmp_path / "relay", free_port()) as relay:
        keeper = LineKeeper(line_settings(relay, opencode, ""), lambda _: None, opencode.healthy)
        await keeper.start()
        try:
            what = registration(opencode, name)
            assert await keeper.register(what, name_is_default=is_default) == registered
        finally:
            await keeper.close()


async def test_an_explicit_name_that_is_too_long_with_the_machines_is_refused(
    tmp_path: Path, opencode: FakeHealth
) -> None:
    with provisioned(tmp_path / "relay", free_port()) as relay:
        keeper = LineKeeper(line_settings(relay, opencode, ""), lambda _: None, opencode.healthy)
        await keeper.start()
        try:
            with pytest.raises(LineRefused, match="too long") as refused:
                await keeper.register(registration(opencode, "x" * 64), name_is_default=False)
            assert "INSTANCE_NAME" in refused.value.remedy
        finally:
            await keeper.close()
