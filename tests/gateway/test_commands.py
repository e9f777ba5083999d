"""The owner's commands, beside a service that has the same files open."""

from __future__ import annotations

import json
import re
import stat
from typing import TYPE_CHECKING, Any

import pexpect
import pytest
from click.testing import CliRunner

from opencode_gateway.cli import cli
from opencode_gateway.machine_tokens import MachineTokens
from opencode_gateway.oauth.requests import signing_key
from opencode_gateway.sign_in.passwords import PASSWORD_RULE
from opencode_gateway.sign_in.throttle import window_code
from opencode_gateway.store import Store
from support.gateway.authorization import proof
from support.gateway.service import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from support.gateway.authorization import AuthorizationServer

PASSWORD = "a long enough password"


class Owner:
    """Runs commands as somebody at the relay does."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def tries(self, *arguments: str, types: str = "") -> Result:
        return CliRunner().invoke(cli, ["--config", str(self.config), *arguments], input=types)

    def runs(self, *arguments: str, types: str = "") -> str:
        done = self.tries(*arguments, types=types)
        assert done.exit_code == 0, done.output
        return done.stdout

    def settings(self, **changed: Any) -> None:
        self.config.write_text(json.dumps(json.loads(self.config.read_text()) | changed))

    def lists(self, *arguments: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.runs(*arguments, "--json"))
        return listed

    def is_refused(self, words: str, *arguments: str, types: str = "") -> None:
        done = self.tries(*arguments, types=types)
        assert done.exit_code == 1, done.output
        assert done.stdout == ""
        assert done.stderr.startswith("opencode-gateway: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.fixture
def owner(server: AuthorizationServer, tmp_path: Path) -> Owner:
    """The owner of `server`, whose clock is the machine's for this."""
    config = tmp_path / "gateway.json"
    settings = {"public_url": server.configuration.public_url, "data_dir": str(tmp_path)}
    config.write_text(json.dumps(settings))
    return Owner(config)


# Clients


async def test_a_window_is_opened_and_closed_under_a_running_service(
    server: AuthorizationServer, owner: Owner
) -> None:
    said = owner.runs("clients", "allow", "--minutes", "3")
    server.clock.advance(1)
    assert (await server.register()).status_code == 201

    assert "clients close" in said
    owner.runs("clients", "close")
    assert (await server.register()).status_code == 400


def test_who_opens_a_window_where_nobody_can_log_in_is_told(owner: Owner) -> None:
    told = "Nobody can log in yet"
    assert told not in owner.runs("clients", "allow")
    owner.runs("users", "disable", "ann")
    assert told in owner.runs("clients", "allow")
    owner.runs("users", "remove", "ann")
    said = owner.runs("clients", "allow")
    assert told in said
    assert "`sudo opencode-gateway users add NAME`" in said


def test_the_code_of_the_window_is_the_one_that_the_login_page_takes(
    server: AuthorizationServer, owner: Owner
) -> None:
    said = owner.runs("clients", "allow")
    server.clock.advance(1)

    opened_at = server.provider.clients.window()

    assert opened_at is not None
    assert window_code(signing_key(server.configuration.data_dir), opened_at) in said


@pytest.mark.parametrize("minutes", ["0", "61", "x"])
def test_a_window_has_its_limits(owner: Owner, minutes: str) -> None:
    assert owner.tries("clients", "allow", "--minutes", minutes).exit_code == 2


async def test_clients_are_listed_and_revoked(server: AuthorizationServer, owner: Owner) -> None:
    client_id = await server.registered(client_name="Chat")
    tokens = await server.tokens(client_id)

    (listed,) = owner.lists("clients", "list")
    assert (listed["id"], listed["name"], listed["sessions"]) == (client_id, "Chat", 1)
    assert "Chat" in owner.runs("clients", "list")
    assert "1 session of it ended" in owner.runs("clients", "revoke", client_id)

    assert not await server.is_good(tokens["access_token"])
    owner.is_refused("there is no client", "clients", "revoke", client_id)
    assert "No client was admitted yet" in owner.runs("clients", "list")


# Known clients

VSCODE = "https://vscode.dev/redirect"


def test_a_window_that_is_closed_where_none_is_needed_is_said_to_be_no_end(owner: Owner) -> None:
    owner.settings(clients={"enrolment": "open"})

    assert "admitted all the same" in owner.runs("clients", "close")


async def test_a_known_client_is_switched_on_and_off_under_a_running_service(
    server: AuthorizationServer, owner: Owner
) -> None:
    server.open_window()
    assert (await server.register(redirect_uris=[VSCODE])).status_code == 400

    assert "Visual Studio Code is on" in owner.runs("clients", "enable", "vscode")
    assert (await server.register(redirect_uris=[VSCODE])).status_code == 201

    assert "clients revoke" in owner.runs("clients", "disable", "vscode")
    assert (await server.register(redirect_uris=[VSCODE])).status_code == 400


def test_each_known_client_is_listed_with_what_switches_it_on(owner: Owner) -> None:
    owner.runs("clients", "enable", "librechat@chat.example.org")
    owner.runs("clients", "disable", "chatgpt")

    listed = {client["name"]: client for client in owner.lists("clients", "known")}

    assert (listed["claude"]["on"], listed["claude"]["sources"]) == (True, ["default"])
    assert (listed["chatgpt"]["on"], listed["chatgpt"]["sources"]) == (False, [])
    assert listed["librechat@chat.example.org"]["sources"] == ["command"]
    assert listed["librechat@chat.example.org"]["title"] == "LibreChat at chat.example.org"
    assert listed["cursor"]["addresses"][-1] == "http://127.0.0.1:PORT/callback"
    shown = owner.runs("clients", "known")
    assert re.search(r"^claude +on +default +Claude ", shown, re.MULTILINE)
    assert re.search(r"^vscode +off +- +Visual Studio Code ", shown, re.MULTILINE)
    assert re.search(r"^open-webui@HOST +off +- +Open WebUI ", shown, re.MULTILINE)
    assert "claude (default), librechat@chat.example.org (command)" in owner.runs("clients", "list")


def test_an_address_that_another_client_has_too_is_said_to_be_allowed_still(owner: Owner) -> None:
    owner.runs("clients", "enable", "codex")
    owner.runs("clients", "enable", "cursor")

    said = owner.runs("clients", "disable", "cursor")

    assert "http://127.0.0.1:PORT/callback is still allowed" in said
    assert "cursor://" not in said
    assert "still allowed" not in owner.runs("clients", "disable", "codex")


def test_what_gateway_json_switches_on_is_switched_off_there(owner: Owner) -> None:
    owner.settings(clients={"known": ["vscode"]})

    owner.is_refused("remove vscode there", "clients", "disable", "vscode")

    assert "vscode (gateway.json)" in owner.runs("clients", "list")


@pytest.mark.parametrize("command", [("enable",), ("disable",), ("allow", "--for")])
def test_a_name_that_is_not_known_is_answered_with_the_nearest(owner: Owner, command: tuple[str, ...]) -> None:
    done = owner.tries("clients", *command, "vs-code")

    assert done.exit_code == 2
    assert "the nearest are vscode" in done.stderr


async def test_a_window_is_opened_for_a_known_client(server: AuthorizationServer, owner: Owner) -> None:
    said = owner.runs("clients", "allow", "--for", "vscode", "--for", "librechat@chat.example.org")
    server.clock.advance(1)

    assert "Visual Studio Code and LibreChat at chat.example.org can connect in this window" in said
    client_id = (await server.register(redirect_uris=[VSCODE])).json()["client_id"]
    asked = await server.authorize(client_id, proof().challenge, redirect_uri=VSCODE)
    server.consent(asked.headers["location"])
    assert owner.lists("clients", "list")[0]["let_in_as"] == "vscode"
    owner.runs("clients", "allow")
    server.clock.advance(1)
    assert (await server.register(redirect_uris=[VSCODE])).status_code == 400


# Sessions


async def test_sessions_are_listed_and_revoked_at_once(server: AuthorizationServer, owner: Owner) -> None:
    client_id = await server.registered()
    first, second = await server.tokens(client_id), await server.tokens(client_id)

    listed = owner.lists("sessions", "list")
    assert [session["login"] for session in listed] == ["ann", "ann"]
    assert listed[0]["id"] in owner.runs("sessions", "list")
    owner.runs("sessions", "revoke", listed[0]["id"])
    assert [await server.is_good(tokens["access_token"]) for tokens in (first, second)].count(True) == 1
    owner.is_refused("there is no session", "sessions", "revoke", listed[0]["id"])
    assert "1 session ended" in owner.runs("sessions", "revoke", "--login", "ann")

    assert not await server.is_good(second["access_token"])
    assert "0 sessions ended" in owner.runs("sessions", "revoke", "--all")


def test_what_to_revoke_must_be_said(owner: Owner) -> None:
    assert owner.tries("sessions", "revoke").exit_code == 2
    assert owner.tries("sessions", "revoke", "id", "--all").exit_code == 2


# Tokens


async def test_a_token_is_printed_once_and_alone(server: AuthorizationServer, owner: Owner) -> None:
    machines = MachineTokens(server.store, server.configuration.resource)
    done = owner.tries("tokens", "add", "backup", "--capability", "observe", "--capability", "drive", "--days", "30")
    token = done.stdout.strip()

    found = await machines.verify_token(token)
    assert found is not None
    assert found.scopes == ["observe", "drive"]
    (listed,) = owner.lists("tokens", "list")
    assert listed["expires_at"] - listed["created_at"] == pytest.approx(30 * 24 * 3600)
    assert "backup" in owner.runs("tokens", "list")
    assert token not in owner.runs("tokens", "list") + owner.runs("tokens", "list", "--json")

    owner.runs("tokens", "revoke", "backup")
    assert await machines.verify_token(token) is None
    owner.is_refused("there is no token", "tokens", "revoke", "backup")


def test_a_token_needs_capabilities(owner: Owner) -> None:
    owner.is_refused("--capability", "tokens", "add", "backup")
    assert owner.tries("tokens", "add", "backup", "--capability", "root").exit_code == 2


# Users


async def test_a_user_is_added_with_a_password_from_standard_input(server: AuthorizationServer, owner: Owner) -> None:
    told = owner.runs("users", "add", "bob", "--capability", "observe", types=f"{PASSWORD}\n")
    assert told.startswith("bob can log in.\n")
    assert any(block in told for block in "█▀▄"), "a code to scan"
    assert "/inbox is where bob sees what needs them" in told

    user = server.users.load()["bob"]
    assert user.capabilities == ("observe",)
    assert PASSWORD not in user.password_hash
    assert {entry["name"]: entry["totp"] for entry in owner.lists("users", "list")} == {"ann": False, "bob": False}
    assert "bob" in owner.runs("users", "list")
    owner.is_refused("already", "users", "add", "bob", types=f"{PASSWORD}\n")


def test_the_rule_for_passwords_comes_before_somebody_thinks_of_one(
    server: AuthorizationServer, owner: Owner
) -> None:
    command = [str(COMMAND), "--config", str(owner.config), "users"]
    for words, prompt in ((["add", "bob"], "Password of bob"), (["password", "ann"], "New password of ann")):
        terminal = pexpect.spawn(command[0], [*command[1:], *words], encoding="utf-8", timeout=60)
        terminal.expect_exact(f"{prompt}:")
        assert PASSWORD_RULE in (terminal.before or "")
        for _ in range(2):
            terminal.sendline(PASSWORD)
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 0
    assert set(server.users.load()) == {"ann", "bob"}


def test_a_password_is_never_empty_or_short(owner: Owner) -> None:
    owner.is_refused("standard input", "users", "add", "bob")
    owner.is_refused("characters", "users", "add", "bob", types="short\n")


@pytest.mark.parametrize("how", [["remove", "ann"], ["password", "ann"], ["disable", "ann"]])
async def test_sessions_end_at_once_with_what_they_rest_on(
    server: AuthorizationServer, owner: Owner, how: list[str]
) -> None:
    tokens = await server.tokens(await server.registered())

    said = owner.runs("users", *how, types=f"{PASSWORD}\n")

    assert "1 session ended" in said
    assert not await server.is_good(tokens["access_token"])


async def test_who_gets_the_name_of_somebody_before_does_not_get_their_sessions(
    server: AuthorizationServer, owner: Owner
) -> None:
    tokens = await server.tokens(await server.registered())
    server.users.remove("ann")  # by hand, behind the command's back

    owner.runs("users", "add", "ann", types=f"{PASSWORD}\n")

    assert not await server.is_good(tokens["access_token"])


async def test_a_disabled_user_can_be_let_in_again(server: AuthorizationServer, owner: Owner) -> None:
    owner.runs("users", "disable", "ann")
    assert server.users.load()["ann"].disabled
    assert "disabled" in owner.runs("users", "list")

    owner.runs("users", "enable", "ann")

    assert not server.users.load()["ann"].disabled


async def test_capabilities_that_are_taken_are_lost_at_once(server: AuthorizationServer, owner: Owner) -> None:
    tokens = await server.tokens(await server.registered())

    owner.runs("users", "capabilities", "ann", "--capability", "observe")

    token = await server.provider.verify_token(tokens["access_token"])
    assert token is not None
    assert token.scopes == ["observe"]
    assert owner.tries("users", "capabilities", "ann").exit_code == 2


def test_one_time_codes_are_set_up_with_a_picture_and_a_key(server: AuthorizationServer, owner: Owner) -> None:
    said = owner.runs("users", "totp", "ann")

    secret = server.users.load()["ann"].totp_secret
    assert secret is not None
    assert secret in said
    assert re.search("[█▀▄]", said)
    owner.runs("users", "totp", "ann", "--off")
    assert server.users.load()["ann"].totp_secret is None


def test_where_people_log_in_elsewhere_there_are_no_users_here(owner: Owner, tmp_path: Path) -> None:
    config = tmp_path / "gateway.json"
    provider = {"mode": "github", "client_id": "x", "client_secret_file": "/x", "users": {"ann@x.org": ["observe"]}}
    config.write_text(
        json.dumps({"public_url": "https://relay.example.org", "data_dir": str(tmp_path), "sign_in": provider})
    )

    owner.is_refused("sign_in.users", "users", "list")


def test_an_unknown_user_is_named(owner: Owner) -> None:
    for command in ("remove", "disable", "totp"):
        owner.is_refused("there is no user", "users", command, "nobody")


# Backup


async def test_a_backup_holds_what_is_needed_to_go_on(
    server: AuthorizationServer, owner: Owner, tmp_path: Path
) -> None:
    tokens = await server.tokens(await server.registered())
    copy = tmp_path / "copy.sqlite3"

    owner.runs("backup", str(copy))

    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    restored = Store(copy)
    with restored.transaction(write=False) as db:
        assert db.execute("SELECT count(*) FROM tokens").fetchone()[0] == 2
    restored.close()
    assert await server.is_good(tokens["access_token"])
    owner.is_refused("is there already", "backup", str(copy))
