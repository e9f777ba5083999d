"""`users passkeys` and `users passkey-remove`, and what becomes of passkeys with their person."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from opencode_gateway.cli import cli
from opencode_gateway.sign_in.passkey_rows import passkeys
from opencode_gateway.sign_in.passkeys import PasskeyRefused, Passkeys
from support.gateway.authorization import PUBLIC_URL
from support.gateway.fake_authenticator import FakeAuthenticator, encoded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from support.gateway.authorization import AuthorizationServer


@pytest.fixture
def runs(server: AuthorizationServer, tmp_path: Path) -> Callable[..., Result]:
    config = tmp_path / "gateway.json"
    config.write_text(json.dumps({"public_url": server.configuration.public_url, "data_dir": str(tmp_path)}))
    return lambda *arguments, **options: CliRunner().invoke(cli, ["--config", str(config), *arguments], **options)


async def added(server: AuthorizationServer) -> FakeAuthenticator:
    """Return a device of ann's."""
    held = Passkeys(server.store, server.users, PUBLIC_URL)
    device = FakeAuthenticator(PUBLIC_URL)
    await held.add("ann", "session", "pixel", device.make(held.adding("ann", "session")))
    return device


async def test_passkeys_are_listed_and_removed_under_a_running_service(
    server: AuthorizationServer, runs: Callable[..., Result]
) -> None:
    device = await added(server)
    (listed,) = json.loads(runs("users", "passkeys", "ann", "--json").stdout)
    assert (listed["login"], listed["name"], listed["site"]) == ("ann", "pixel", "relay.example.org")
    assert listed["credential"] == encoded(device.credential)
    shown = runs("users", "passkeys", "ann").stdout
    assert listed["id"] in shown
    assert "pixel" in shown

    refused = runs("users", "passkey-remove", "bob", listed["id"])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "users passkeys NAME" in refused.stderr
    assert "(pixel) is removed" in runs("users", "passkey-remove", "ann", listed["id"]).stdout

    assert "ann has no passkey" in runs("users", "passkeys", "ann").stdout
    held = Passkeys(server.store, server.users, PUBLIC_URL)
    with pytest.raises(PasskeyRefused, match="it was removed"):
        await held.log_in("browser", device.sign(held.logging_in("browser")))


async def test_they_go_with_their_person(server: AuthorizationServer, runs: Callable[..., Result]) -> None:
    await added(server)
    assert runs("users", "disable", "ann").exit_code == 0
    assert passkeys(server.store, "ann"), "who is let in again has them"
    assert runs("users", "remove", "ann").exit_code == 0
    assert passkeys(server.store, "ann") == []


async def test_who_gets_the_name_of_somebody_before_does_not_get_their_passkeys(
    server: AuthorizationServer, runs: Callable[..., Result]
) -> None:
    await added(server)
    server.users.remove("ann")  # by hand, behind the command's back
    assert runs("users", "add", "ann", input="a long enough password\n").exit_code == 0
    assert passkeys(server.store, "ann") == []


async def test_they_are_listed_where_people_log_in_at_a_provider(
    server: AuthorizationServer, runs: Callable[..., Result], tmp_path: Path
) -> None:
    await added(server)
    provider = {"mode": "github", "client_id": "x", "client_secret_file": "/x", "users": {"ann@x.org": ["observe"]}}
    settings = {"public_url": PUBLIC_URL, "data_dir": str(tmp_path), "sign_in": provider}
    (tmp_path / "gateway.json").write_text(json.dumps(settings))
    assert "pixel" in runs("users", "passkeys", "ann").stdout
