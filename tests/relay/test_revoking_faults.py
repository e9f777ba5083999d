"""Revoking where the relay's files cannot be written, or are none: the key is out, or it is said that it is not."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from relay.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from relay.provisioned import ProvisionedRelay


@pytest.fixture
def relay(own_relay: ProvisionedRelay) -> ProvisionedRelay:
    """The one whose clients these tests change."""
    return own_relay


def test_a_revocation_that_could_not_be_recorded_shuts_the_key_out_and_can_be_run_again(
    relay: ProvisionedRelay,
) -> None:
    state = str(relay.etc / "clients.json")
    with RawClient(relay, "laptop") as laptop:
        assert laptop.first["type"] == "ready"
        subprocess.run(["mount", "--bind", state, state], check=True)  # nothing can take its place
        try:
            failed = relay.run("revoke", "laptop")
        finally:
            subprocess.run(["umount", state], check=True)
        assert failed.returncode == 1
        assert f"{state} cannot be written" in failed.stderr
        assert "run this again" in failed.stderr
        laptop.wait()
    assert relay.public_key("laptop") not in (relay.etc / "authorized_keys").read_text()
    assert relay.run("revoke", "laptop").returncode == 0
    assert [entry["name"] for entry in json.loads(relay.run("clients", "--json").stdout)["revoked"]] == ["laptop"]


@contextmanager
def full_disk(directory: Path, elsewhere: Path) -> Iterator[Path]:
    """Have the files of `directory` on a disk that is full; yield what takes the room there."""
    subprocess.run(["cp", "-a", f"{directory}/.", str(elsewhere)], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=755", "tmpfs", str(directory)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{elsewhere}/.", str(directory)], check=True)
        filler = directory / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield filler
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_on_a_full_disk_a_key_is_shut_out_all_the_same_and_nobody_else(
    relay: ProvisionedRelay, tmp_path: Path
) -> None:
    with full_disk(relay.etc, tmp_path) as filler:
        keys = relay.etc / "authorized_keys"
        inode = keys.stat().st_ino
        with RawClient(relay, "laptop") as laptop, RawClient(relay, "desktop") as desktop:
            assert laptop.first["type"] == "ready"
            assert desktop.first["type"] == "ready"
            failed = relay.run("revoke", "laptop")
            laptop.wait()
            assert desktop.ask({"type": "ping", "n": 1})["n"] == 1
        assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
        assert "authorized_keys cannot be written: No space left on device" in failed.stderr
        assert "The old key of laptop cannot log in any more, and its sessions are cut; nothing else" in failed.stderr
        assert relay.public_key("laptop").split()[1] not in keys.read_text()
        assert (keys.stat().st_ino, stat.S_IMODE(keys.stat().st_mode)) == (inode, 0o640)
        with RawClient(relay, "laptop") as laptop:
            assert laptop.wait() == 255
            assert "Permission denied (publickey)" in laptop.errors
        with RawClient(relay, "desktop") as desktop:
            assert desktop.first["type"] == "ready"
        filler.unlink()
        assert json.loads(relay.run("revoke", "laptop", "--json").stdout)["removed"] == ["laptop"]
        assert keys.read_text().count("#") == 1


def test_a_key_that_cannot_be_shut_out_is_said_to_log_in_still(relay: ProvisionedRelay) -> None:
    keys = str(relay.etc / "authorized_keys")
    subprocess.run(["mount", "--bind", keys, keys], check=True)  # nothing can take its place
    subprocess.run(["mount", "-o", "remount,bind,ro", keys], check=True)  # and nothing in it can be changed
    try:
        failed = relay.run("revoke", "laptop")
    finally:
        subprocess.run(["umount", keys], check=True)
    assert "The old key of laptop STILL LOGS IN" in failed.stderr


def test_a_state_file_that_is_no_file_keeps_nobody_waiting(relay: ProvisionedRelay) -> None:
    state = relay.etc / "clients.json"
    written = state.read_bytes()
    state.unlink()
    os.mkfifo(state)
    try:
        ran = relay.run("clients")
        with RawClient(relay, "laptop") as client:
            assert client.first["type"] == "ready"
    finally:
        state.unlink()
        state.write_bytes(written)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "clients.json cannot be read: it is no regular file" in ran.stderr


def _damage(state: Path, how: str) -> None:
    written = state.read_bytes()
    state.unlink()
    match how:
        case "cut short":
            state.write_bytes(written[: len(written) // 2])
        case "empty":
            state.touch()
        case "no file":
            os.mkfifo(state)
        case "a link to nowhere":
            state.symlink_to("/nonexistent/clients.json")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("cut short", "clients.json is damaged"),
        ("empty", "clients.json is damaged"),
        ("no file", "clients.json cannot be read"),
        ("a link to nowhere", "clients.json is missing"),
        ("missing", "clients.json is missing"),
    ],
)
def test_a_record_that_cannot_be_used_keeps_no_key_in(relay: ProvisionedRelay, how: str, why: str) -> None:
    state = relay.etc / "clients.json"
    written = state.read_bytes()
    with RawClient(relay, "laptop") as laptop, RawClient(relay, "desktop") as desktop:
        assert laptop.first["type"] == "ready"
        assert desktop.first["type"] == "ready"
        _damage(state, how)
        try:
            failed = relay.run("revoke", "laptop")
            laptop.wait()
            assert desktop.ask({"type": "ping", "n": 1})["n"] == 1
            with RawClient(relay, "laptop") as again:
                assert again.wait() == 255
                assert "Permission denied (publickey)" in again.errors
            with RawClient(relay, "desktop") as other:
                assert other.first["type"] == "ready"
        finally:
            state.unlink(missing_ok=True)
            state.write_bytes(written)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert "The old key of laptop cannot log in any more" in failed.stderr
    assert why in failed.stderr
    assert "opencode-relay restore FILE" in failed.stderr or "no regular file" in failed.stderr
    assert "run this again: until then the key is not remembered as revoked" in failed.stderr
    assert json.loads(relay.run("revoke", "laptop", "--json").stdout)["removed"] == ["laptop"]


def test_settings_that_are_damaged_keep_no_key_in(relay: ProvisionedRelay) -> None:
    settings = relay.etc / "relay.json"
    written = settings.read_bytes()
    with RawClient(relay, "laptop") as laptop:
        assert laptop.first["type"] == "ready"
        settings.write_text("{")
        try:
            failed = relay.run("revoke", "laptop")
        finally:
            settings.write_bytes(written)
        laptop.wait()
    assert "The old key of laptop cannot log in any more" in failed.stderr
    assert relay.public_key("laptop") not in (relay.etc / "authorized_keys").read_text()


def test_a_dead_agent_and_a_command_that_hangs_keep_no_key_in(relay: ProvisionedRelay) -> None:
    relay.kill_agent()
    try:
        with relay.locked():
            failed = relay.run("revoke", "laptop")
        keys = (relay.etc / "authorized_keys").read_text()
    finally:
        relay.start_agent()
    assert "another opencode-relay command is changing the clients" in failed.stderr
    assert "The old key of laptop cannot log in any more" in failed.stderr
    assert relay.public_key("laptop") not in keys
    assert relay.public_key("desktop") in keys


def test_whom_nobody_knows_is_said_to_be_unknown_and_nobody_is_cut(relay: ProvisionedRelay) -> None:
    keys = (relay.etc / "authorized_keys").read_bytes()
    failed = relay.run("revoke", "lap")
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert "no client 'lap' is enrolled" in failed.stderr
    assert (relay.etc / "authorized_keys").read_bytes() == keys
