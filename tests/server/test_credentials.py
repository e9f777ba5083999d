"""Passwords of instances: the right one goes to the right instance and nowhere else, and is never shown."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from opencode_fleet.credentials import Credentials
from opencode_fleet.errors import SettingsError
from support.chat.mcp_client import relay_client
from support.fleet.registry import register, registration
from support.opencodes.fake_hostile import HostileInstance
from support.opencodes.opencode import ServedOpenCode
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from support.chat.mcp_client import RelayClient
    from support.opencodes.opencode import OpenCodeHome

PASSWORD = 'correct horse: battery "staple" ü'


def write(path: Path, content: object, mode: int = 0o600) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


async def row(client: RelayClient, name: str) -> dict[str, object]:
    rows = (await client.call("instances")).structured["instances"]
    return next(row for row in rows if row["name"] == name)


async def is_in(client: RelayClient, name: str, state: str) -> bool:
    return (await row(client, name))["state"] == state


async def waits_for(client: RelayClient, name: str, what: str) -> bool:
    return what in str((await row(client, name)).get("waits_for"))


async def test_a_password_added_while_the_server_runs_opens_its_instance_and_no_other_gets_it(
    opencode_home: OpenCodeHome, tmp_path: Path, registry_dir: Path
) -> None:
    file = write(tmp_path / "credentials.json", {})
    with ServedOpenCode(opencode_home, tmp_path / "locked", password=PASSWORD) as served:
        register(registry_dir, registration("locked", served.port))
        async with HostileInstance("unauthorized") as other:
            register(registry_dir, other.registration())
            async with relay_client(registry_dir, env={"RELAY_CREDENTIALS_FILE": str(file)}) as client:
                await eventually_async(lambda: is_in(client, "locked", "unresponsive"))
                assert "“locked” wants a password" in str((await row(client, "locked"))["waits_for"])
                refused = await client.call("send", instance="locked", message="let me in")
                assert (
                    "put its user name and password into the file that RELAY_CREDENTIALS_FILE names" in refused.text
                )

                asked = len(other.heads)
                write(file, {"locked": {"password": PASSWORD}})
                await eventually_async(lambda: is_in(client, "locked", "idle"), within=30)
                answer = await client.call("send", instance="locked", message="now I am in")
                assert answer.structured["text"] == "echo: now I am in"
                await eventually_async(lambda: len(other.heads) > asked, within=30)
                said = answer.text + (await client.call("instances")).text + client.stderr
    secret = base64.b64encode(f"opencode:{PASSWORD}".encode())
    for head in other.heads:
        assert b"authorization" not in head.lower()
        assert secret not in head
    assert "staple" not in said


def test_without_a_file_nobody_has_a_password() -> None:
    assert Credentials(None).for_instance("x") is None


def test_only_the_exact_name_gets_the_password_and_it_does_not_show(tmp_path: Path) -> None:
    file = write(tmp_path / "c.json", {"laptop": {"username": "ann", "password": PASSWORD}})
    credentials = Credentials(file)
    found = credentials.for_instance("laptop")
    assert found is not None
    assert (found.username, found.password.get_secret_value()) == ("ann", PASSWORD)
    assert "staple" not in repr(found)
    for other in ("Laptop", "laptop ", "lap", "laptop-2", ""):
        assert credentials.for_instance(other) is None


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o777])
def test_a_file_that_every_user_can_use_is_not_used(tmp_path: Path, mode: int) -> None:
    file = write(tmp_path / "c.json", {"laptop": {"password": PASSWORD}}, mode)
    with pytest.raises(SettingsError, match="RELAY_CREDENTIALS_FILE must be closed to other users: chmod o= "):
        Credentials(file).for_instance("laptop")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"laptop": "secret"}',
        '{"laptop": {}}',
        '{"laptop": {"password": 5}}',
        '{"a": {"pasword": "secret"}}',
    ],
)
def test_a_file_of_another_shape_says_the_right_one_without_quoting_itself(tmp_path: Path, content: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Credentials(write(tmp_path / "c.json", content)).for_instance("laptop")
    assert '{"instance": {"username": "opencode", "password": "…"}}' in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RELAY_CREDENTIALS_FILE must be readable, and is not: No such file"):
        Credentials(tmp_path / "gone.json").for_instance("laptop")


async def test_who_needs_a_password_learns_what_is_wrong_with_the_file_and_others_go_on(
    tmp_path: Path, registry_dir: Path
) -> None:
    file = write(tmp_path / "credentials.json", "{}")
    async with HostileInstance("unauthorized") as locked, HostileInstance("stalled_stream") as open_one:
        for each in (locked, open_one):
            register(registry_dir, each.registration())
        async with relay_client(registry_dir, env={"RELAY_CREDENTIALS_FILE": str(file)}) as client:
            # Once it has started: it would refuse to, with such a file.
            await eventually_async(lambda: is_in(client, open_one.name, "idle"))
            write(file, "{")
            await eventually_async(lambda: waits_for(client, locked.name, "RELAY_CREDENTIALS_FILE must be JSON like"))
            assert await is_in(client, locked.name, "unresponsive")
