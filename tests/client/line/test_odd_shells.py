"""Accounts that run something else than our command, or talk before it: nothing of ours reaches a foreign shell."""

from __future__ import annotations

import asyncio
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client.line.conftest import line_settings
from client.line.held import line
from opencode_connected.line.connection import BEGIN_SECONDS, LineConnection
from opencode_connected.line.errors import LineError, NotBegun
from opencode_connected.line.inquiry import probe, query
from support.line.sshd import Sshd, unix_user

if TYPE_CHECKING:
    from opencode_connected.line.command import LineSettings
    from support.opencodes.fake_health import FakeHealth

HERE = Path(__file__).parent


def test_what_hangs_is_named_within_ten_seconds() -> None:
    assert BEGIN_SECONDS < 10


@pytest.mark.parametrize(
    "forced",
    [
        "tee {log} | bash",
        "tee {log} | zsh",
        "exec tee {log}",  # what `command="cat"` is
        'printf %%s\\\\n "$SSH_ORIGINAL_COMMAND"; tee {log} | bash',  # tells everybody what it was asked for
    ],
)
async def test_a_forced_command_that_reads_commands_gets_none_of_ours(
    forced: str, tmp_path: Path, opencode: FakeHealth, registry_dir: Path
) -> None:
    log = tmp_path / "read"
    with Sshd(tmp_path / "relay", options=(f"ForceCommand {forced.format(log=log)}",)) as relay:
        settings = line_settings(relay, opencode, registry_dir)
        async with LineConnection(settings, forward=0, begin_seconds=1) as connection:
            with pytest.raises(NotBegun, match="has not begun our command after 1 s") as error:
                await connection.open()

    assert "forced command" in error.value.remedy
    assert (error.value.hop, error.value.permanent) == ("account", False)
    assert log.read_bytes() == b""
    assert not registry_dir.exists()


async def test_a_startup_file_that_becomes_another_shell_gets_none_of_ours(
    opencode: FakeHealth, tmp_path: Path
) -> None:
    with unix_user("bash") as user, Sshd(tmp_path / "relay", user=user) as relay:
        home = Path(f"~{user}").expanduser()
        (home / ".bashrc").write_text("exec sh -c 'tee ~/read | zsh'\n")
        async with LineConnection(
            line_settings(relay, opencode, "registry"), forward=0, begin_seconds=1
        ) as connection:
            with pytest.raises(NotBegun, match="lets this account in"):
                await connection.open()

        assert (home / "read").read_bytes() == b""
        assert not (home / "registry").exists()


@pytest.mark.parametrize(("login_shell", "startup"), [("false", ""), ("bash", "exit 1\n")])
async def test_an_account_that_ends_what_comes_over_ssh_is_said_to_do_so(
    login_shell: str, startup: str, opencode: FakeHealth, tmp_path: Path
) -> None:
    with unix_user(login_shell) as user, Sshd(tmp_path / "relay", user=user) as relay:
        (Path(f"~{user}").expanduser() / ".bashrc").write_text(startup)
        async with LineConnection(line_settings(relay, opencode, "registry"), forward=0) as connection:
            with pytest.raises(LineError, match="ends the session with status 1 before our command") as error:
                await connection.open()

    assert error.value.hop == "account"
    assert "startup file" in error.value.remedy


async def test_a_title_that_a_startup_file_prints_is_in_nobodys_way(opencode: FakeHealth, tmp_path: Path) -> None:
    with unix_user("bash") as user, Sshd(tmp_path / "relay", user=user) as relay:
        (Path(f"~{user}").expanduser() / ".bashrc").write_text("printf '\\033]0;me@vm\\007 Welcome!'\n")
        probed = await probe(line_settings(relay, opencode, "registry"))

    assert probed.health == "ok"
    assert probed.startup_output == "]0;me@vm Welcome!"


async def test_what_stands_before_a_provisioned_relays_first_word_is_taken_from_it(settings: LineSettings) -> None:
    relay = shlex.join([sys.executable, str(HERE / "fake_relay.py"), "glued"])
    async with LineConnection(replace(settings, ssh_command=relay), forward=0) as connection:
        await connection.open()

        assert (connection.agent, connection.startup_output) == ("fake", "]0;vm Welcome!")


async def test_an_account_that_is_slow_to_begin_is_waited_for_by_who_asks_once(
    opencode: FakeHealth, tmp_path: Path, registry_dir: Path
) -> None:
    slow = f'ForceCommand sleep {BEGIN_SECONDS + 0.5}; eval "$SSH_ORIGINAL_COMMAND"'
    with Sshd(tmp_path / "relay", options=(slow,)) as relay:
        settings = line_settings(relay, opencode, registry_dir)
        probed, registrations = await asyncio.gather(probe(settings), query(settings))

    assert (probed.health, registrations) == ("ok", [])


async def test_an_account_that_is_slow_to_begin_is_given_more_time_with_each_try(
    opencode: FakeHealth, tmp_path: Path, registry_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opencode_connected.line.keeper.BEGIN_SECONDS", 0.2)
    slow = 'ForceCommand sleep 1.5; eval "$SSH_ORIGINAL_COMMAND"'
    with Sshd(tmp_path / "relay", options=(slow,)) as relay:
        async with line(line_settings(relay, opencode, registry_dir), opencode) as held:
            assert await held.register() == "laptop-api"

    assert held.kinds()[0] == "lost"
    assert "has not begun our command" in held.events[0].text
