"""Where codes may be sent: the union of gateway.json, defaults and commands, and windows that are for one client."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AnyUrl, ValidationError

from opencode_gateway.configuration import ClientSettings
from opencode_gateway.oauth.enrolment import close_window, list_clients, open_window, revoke_client
from opencode_gateway.oauth.known_clients import ENTRIES, known_client
from opencode_gateway.oauth.redirects import Allowed, RedirectRules, commanded, switch, switches
from opencode_gateway.store import FILE_NAME, Store
from support.gateway.authorization import CALLBACK, AuthorizationServer, proof
from support.gateway.fake_documents import document_host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VSCODE = "https://vscode.dev/redirect"
CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"
CHATGPT = "https://chatgpt.com/connector/oauth/OUbdUMlL15Ct"
LOOPBACK = "http://127.0.0.1:5000/callback"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / FILE_NAME)
    yield store
    store.close()


def rules(store: Store, **settings: Any) -> Allowed:
    return RedirectRules(ClientSettings.model_validate(settings), store, lambda: 1000.0).now()


def enable(store: Store, name: str, *, enabled: bool = True) -> None:
    switch(store, known_client(name), enabled=enabled, now=0.0)


# The union


def test_without_settings_claude_and_chatgpt_are_allowed_and_nobody_else(store: Store) -> None:
    allowed = rules(store)

    assert all(map(allowed.allows, [CALLBACK, "https://claude.com/api/mcp/auth_callback", CHATGPT]))
    assert not any(map(allowed.allows, [VSCODE, CURSOR, LOOPBACK, "https://evil.example/"]))
    assert allowed.document_hosts == {"claude.ai", "claude.com", "chatgpt.com"}
    assert allowed.origins == {"https://claude.ai", "https://claude.com", "https://chatgpt.com"}


def test_what_gateway_json_names_and_what_a_command_switched_on_hold_together(store: Store) -> None:
    enable(store, "cursor")

    allowed = rules(store, known=["vscode"])

    assert all(map(allowed.allows, [CALLBACK, CHATGPT, VSCODE, CURSOR]))
    assert {"vscode.dev", "cursor.com", "claude.ai"} <= allowed.document_hosts


def test_redirect_uris_stand_in_place_of_the_defaults_as_before(store: Store) -> None:
    allowed = rules(store, redirect_uris=["https://chat.example.org/cb"])

    assert allowed.allows("https://chat.example.org/cb")
    assert not any(map(allowed.allows, [CALLBACK, CHATGPT]))
    assert allowed.document_hosts == {"claude.ai", "claude.com", "chatgpt.com"}
    assert rules(store, redirect_uris=["https://chat.example.org/cb"], known=["claude"]).allows(CALLBACK)
    assert not rules(store, redirect_uris=[]).allows(CALLBACK)


def test_client_id_hosts_stand_in_place_of_the_defaults_and_beside_what_is_switched_on(store: Store) -> None:
    assert rules(store, client_id_hosts=["chat.example.org"], redirect_uris=[]).document_hosts == {"chat.example.org"}

    hosts = rules(store, client_id_hosts=["chat.example.org"], redirect_uris=[], known=["vscode"]).document_hosts

    assert hosts == {"chat.example.org", "vscode.dev"}


def test_loopback_redirects_allow_any_program_at_any_port(store: Store) -> None:
    allowed = rules(store, loopback_redirects=True)

    for uri in (LOOPBACK, "http://localhost:1/x", "http://[::1]/x", "http://127.0.0.1:33418"):
        assert allowed.allows(uri)
    assert not allowed.allows("http://127.0.0.1.evil.example/x")


def test_a_client_of_ones_own_host_is_on_for_that_host_alone(store: Store) -> None:
    enable(store, "librechat@chat.example.org")

    allowed = rules(store)

    assert allowed.allows("https://chat.example.org/api/mcp/relay/oauth/callback")
    assert not allowed.allows("https://evil.example/api/mcp/relay/oauth/callback")


def test_a_command_switches_off_what_is_on_by_default_and_what_a_command_switched_on(store: Store) -> None:
    enable(store, "vscode")
    for name in ("chatgpt", "vscode"):
        enable(store, name, enabled=False)

    allowed = rules(store)

    assert allowed.allows(CALLBACK)
    assert not any(map(allowed.allows, [CHATGPT, VSCODE]))
    assert allowed.document_hosts == {"claude.ai", "claude.com"}
    enable(store, "chatgpt")
    assert rules(store).allows(CHATGPT)


def test_what_gateway_json_names_stays_on_whatever_a_command_says(store: Store) -> None:
    enable(store, "vscode", enabled=False)

    assert rules(store, known=["vscode"]).allows(VSCODE)


def test_each_known_client_says_what_switches_it_on(store: Store) -> None:
    enable(store, "claude")
    enable(store, "cursor")
    enable(store, "librechat@b.example.org")
    settings = ClientSettings(known=("cursor", "librechat@a.example.org"))

    with store.transaction(write=False) as db:
        found = {str(one.known): one.sources for one in switches(settings, commanded(db))}

    assert found["claude"] == ("default", "command")
    assert found["chatgpt"] == ("default",)
    assert found["cursor"] == ("gateway.json", "command")
    assert found["librechat@a.example.org"] == ("gateway.json",)
    assert found["librechat@b.example.org"] == ("command",)
    assert found["vscode"] == found["open-webui"] == ()
    assert "librechat" not in found


def test_a_switch_of_a_client_that_is_no_longer_known_is_passed_over(store: Store) -> None:
    with store.transaction() as db:
        db.execute("INSERT INTO known_clients (name, enabled, changed_at) VALUES ('forgotten', 1, 0)")

    assert rules(store).allows(CALLBACK)


# What a refusal says


@pytest.mark.parametrize(
    ("uris", "reason", "remedy"),
    [
        ([VSCODE], "vscode.dev", "`sudo opencode-gateway clients enable vscode`"),
        ([CURSOR], "the scheme cursor:", "`sudo opencode-gateway clients allow --for cursor`"),
        (["http://localhost:1/xyz"], "a program on one's own machine", "clients.loopback_redirects"),
        (["https://chat.example.org/cb"], "chat.example.org", "clients.redirect_uris"),
        (["https://claude.ai@evil.example/cb"], "(evil.example)", "clients.redirect_uris"),
        (["javascript:alert(1)"], "the scheme javascript:", "https address"),
        (["http://chat.example.org/cb"], "chat.example.org", "https address"),
        ([], "it has none", "https address"),
    ],
)
def test_a_refusal_names_the_address_and_what_helps(store: Store, uris: list[str], reason: str, remedy: str) -> None:
    refusal = rules(store).refusal(uris, "Chat")

    assert (refusal.kind, refusal.client) == ("redirect", "Chat")
    assert reason in refusal.reason
    assert remedy in refusal.remedy


@given(st.lists(st.text(max_size=200), max_size=12), st.text(max_size=80))
def test_a_refusal_is_one_short_line_whatever_is_asked(uris: list[str], name: str) -> None:
    allowed = Allowed(exact=(), loopback=False, known=(), let_in=(), document_hosts=frozenset())

    refusal = allowed.refusal(uris, name)

    assert re.fullmatch(r"[ -~]{1,500}", refusal.reason)
    assert re.fullmatch(r"[ -~]{1,800}", refusal.remedy)


async def test_the_person_whose_client_asks_for_another_address_is_told(server: AuthorizationServer) -> None:
    client_id = await server.registered()

    refused = await server.authorize(client_id, proof().challenge, redirect_uri=VSCODE)

    assert refused.status_code == 400
    assert "clients enable vscode" in refused.json()["error_description"]


async def test_a_client_that_names_no_address_is_told_why_its_own_is_not_allowed_any_longer(
    server: AuthorizationServer,
) -> None:
    enable(server.store, "vscode")
    client_id = await server.registered(redirect_uris=[VSCODE])
    enable(server.store, "vscode", enabled=False)

    refused = await server.authorize(client_id, proof().challenge, redirect_uri=None)

    assert "clients enable vscode" in refused.json()["error_description"]


# Addresses that are not what they seem, through the parsers that a request goes through


@given(st.text("./\\%2eE2fF?#@:;a-_~ \n\t\u0430", max_size=24))
def test_a_parser_makes_no_other_host_or_path_of_a_connectors_address(tail: str) -> None:
    allowed = Allowed(
        exact=(), loopback=False, known=(known_client("chatgpt"),), let_in=(), document_hosts=frozenset()
    )
    try:
        uri = allowed.as_written(AnyUrl(CHATGPT.rpartition("/")[0] + "/" + tail))
    except ValidationError:
        return

    if allowed.allows(uri):
        parts = urlsplit(uri)
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("https", "chatgpt.com", "", "")
        assert re.fullmatch(r"/connector(/oauth/[A-Za-z0-9_~:-]{1,128}|_platform_oauth_redirect)", parts.path), (
            parts.path
        )


@pytest.mark.parametrize(
    "uri",
    [
        f"{CHATGPT}/../x",
        f"{CHATGPT}/%2e%2e/x",
        f"{CHATGPT}%2f..",
        f"{CHATGPT}\\..\\x",
        f"{CHATGPT}?x",
        f"{CHATGPT}#x",
        f"{CHATGPT}/",
        f"{CHATGPT}\n",
        CHATGPT.replace("chatgpt.com", "chatgpt.com:443"),
        CHATGPT.replace("chatgpt.com", "CHATGPT.com"),
        CHATGPT.replace("chatgpt.com", "x@chatgpt.com"),
        CHATGPT.replace("OUbdUMlL15Ct", "another"),
    ],
)
async def test_a_code_goes_to_the_connector_that_registered_as_it_is_written(
    server: AuthorizationServer, uri: str
) -> None:
    client_id = await server.registered(redirect_uris=[CHATGPT])
    assert (await server.authorize(client_id, proof().challenge, redirect_uri=CHATGPT)).status_code == 302

    assert (await server.authorize(client_id, proof().challenge, redirect_uri=uri)).status_code == 400


# A window for one client


def opened(server: AuthorizationServer, *names: str) -> None:
    open_window(server.store, minutes=10, now=server.clock(), known=map(known_client, names))


async def test_a_window_for_a_client_admits_it_and_no_other_that_is_off(server: AuthorizationServer) -> None:
    opened(server, "claude-code")

    assert (await server.register(redirect_uris=[LOOPBACK])).status_code == 201
    assert (await server.register(redirect_uris=[CALLBACK])).status_code == 201
    for other in (VSCODE, CURSOR, "http://127.0.0.1:1/other"):
        assert (await server.register(redirect_uris=[other])).status_code == 400


async def test_what_a_window_for_it_admitted_goes_on_working_until_it_is_revoked(
    server: AuthorizationServer,
) -> None:
    opened(server, "claude-code")
    client_id = (await server.register(redirect_uris=[LOOPBACK])).json()["client_id"]
    server.clock.advance(601)
    another_port = "http://127.0.0.1:50001/callback"

    asked = await server.authorize(client_id, proof().challenge, redirect_uri=another_port)
    server.consent(asked.headers["location"])
    assert (await server.authorize(client_id, proof().challenge, redirect_uri=another_port)).status_code == 302
    assert (await server.register(redirect_uris=[LOOPBACK])).status_code == 400
    (listed,) = list_clients(server.store)
    assert listed.let_in_as == "claude-code"
    other_path = "http://127.0.0.1:50001/other"
    assert (await server.authorize(client_id, proof().challenge, redirect_uri=other_path)).status_code == 400

    revoke_client(server.store, client_id)
    assert (await server.authorize(client_id, proof().challenge, redirect_uri=LOOPBACK)).status_code == 400


async def test_a_client_that_is_on_is_not_kept_as_let_in_by_a_window(server: AuthorizationServer) -> None:
    opened(server, "vscode")
    client_id = (await server.register(redirect_uris=[CALLBACK])).json()["client_id"]

    await server.tokens(client_id)

    (listed,) = list_clients(server.store)
    assert (listed.id, listed.let_in_as) == (client_id, "")


async def test_the_next_window_is_for_whom_it_is_opened(server: AuthorizationServer) -> None:
    opened(server, "vscode")
    server.open_window()
    assert (await server.register(redirect_uris=[VSCODE])).status_code == 400

    opened(server, "vscode", "cursor")
    assert (await server.register(redirect_uris=[VSCODE])).status_code == 201
    assert (await server.register(redirect_uris=[CURSOR])).status_code == 201
    close_window(server.store, now=server.clock())
    assert (await server.register(redirect_uris=[VSCODE])).status_code == 400


async def test_a_client_whose_known_client_is_switched_off_gets_no_new_login(server: AuthorizationServer) -> None:
    enable(server.store, "vscode")
    client_id = await server.registered(redirect_uris=[VSCODE])
    assert (await server.authorize(client_id, proof().challenge, redirect_uri=VSCODE)).status_code == 302

    enable(server.store, "vscode", enabled=False)

    assert (await server.authorize(client_id, proof().challenge, redirect_uri=VSCODE)).status_code == 400


async def test_a_client_that_is_off_logs_in_again_in_a_window_for_it_and_from_then_on(
    server: AuthorizationServer,
) -> None:
    enable(server.store, "vscode")
    client_id = await server.registered(redirect_uris=[VSCODE])
    enable(server.store, "vscode", enabled=False)
    opened(server, "vscode")

    await server.code(client_id, proof().challenge, redirect_uri=VSCODE)

    server.clock.advance(601)
    assert (await server.authorize(client_id, proof().challenge, redirect_uri=VSCODE)).status_code == 302


# Documents


async def test_a_document_of_a_known_client_is_fetched_once_it_is_switched_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with document_host(tmp_path, monkeypatch) as host:
        # The test's host stands for one that is in the list.
        monkeypatch.setattr("opencode_gateway.oauth.redirects.ENTRIES", _with_document_host(host.netloc))
        monkeypatch.setattr("opencode_gateway.oauth.known_clients.ENTRIES", _with_document_host(host.netloc))
        data = tmp_path / "data"
        data.mkdir()
        server = AuthorizationServer(data)
        client_id = host.put_client("/client.json", redirect_uris=["https://evil.example/cb", VSCODE])
        server.open_window()

        refused = await server.authorize(client_id, proof().challenge, redirect_uri=VSCODE)
        assert "clients enable vscode" in refused.json()["error_description"]
        assert host.asked == []

        enable(server.store, "vscode")
        assert (await server.authorize(client_id, proof().challenge, redirect_uri=VSCODE)).status_code == 302
        enable(server.store, "vscode", enabled=False)

        opened(server, "vscode")
        await server.code(client_id, proof().challenge, redirect_uri=VSCODE)
        (listed,) = list_clients(server.store)
        assert listed.let_in_as == "vscode"

        server.open_window()
        assert (await server.authorize(client_id, proof().challenge, redirect_uri=VSCODE)).status_code == 302
        other = host.put_client("/other.json", redirect_uris=[VSCODE])
        assert (await server.authorize(other, proof().challenge, redirect_uri=VSCODE)).status_code == 400
        await server.close()


async def test_a_document_none_of_whose_addresses_is_allowed_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with document_host(tmp_path, monkeypatch) as host:
        data = tmp_path / "data"
        data.mkdir()
        server = AuthorizationServer(data, clients={"client_id_hosts": [host.netloc]})
        client_id = host.put_client(
            "/client.json", client_name="Claude Code", redirect_uris=["http://localhost/callback"]
        )
        server.open_window()

        refused = await server.authorize(client_id, proof().challenge, redirect_uri="http://localhost:5/callback")

        assert "clients enable claude-code" in refused.json()["error_description"]
        opened(server, "claude-code")
        asked = await server.authorize(client_id, proof().challenge, redirect_uri="http://localhost:5/callback")
        assert asked.status_code == 302
        await server.close()


def _with_document_host(netloc: str) -> dict[str, Any]:
    vscode = ENTRIES["vscode"].model_copy(update={"document_hosts": (netloc,)})
    return {**ENTRIES, "vscode": vscode}
