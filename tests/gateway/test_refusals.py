"""Whoever is refused is told what helps, and the owner sees it: bounded, whatever strangers do."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from opencode_gateway.errors import StoreError
from opencode_gateway.refusal_log import AUDITED, KEPT_SECONDS, MAX_ROWS, Refusals, list_refusals
from opencode_gateway.refusals import KINDS, Refusal
from opencode_gateway.store import FILE_NAME, Store
from support.gateway.authorization import CALLBACK, AuthorizationServer, Clock, proof
from support.gateway.product_gateway import ProductGateway
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from opencode_gateway.audit import AuditEvent

OAUTH_TEXT = re.compile(r"[ !#-\[\]-~]{1,500}")
"""What RFC 6749 lets `error_description` hold, and no more than a client shows."""


class World:
    """Refusals on a store, recorded without a service; `again` is a restart."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.events: list[AuditEvent] = []
        self._path = directory / FILE_NAME
        self.again()

    def again(self) -> None:
        self.log = Refusals(Store(self._path), on_event=self.events.append, clock=self.clock)

    def refuse(self, kind: Any = "window", client: str = "Chat", address: str = "203.0.113.7", **more: str) -> None:
        told = {"reason": "no new client is admitted now", "remedy": "open a window", **more}
        self.clock.advance(1)
        self.log.record(Refusal(kind=kind, client=client, address=address, **told))

    def kept(self) -> list[Any]:
        self.log.flush()
        store = Store(self._path)
        rows = list_refusals(store)
        store.close()
        return rows


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.log.close()


# What is kept


def test_what_is_alike_is_one_row_that_counts(world: World) -> None:
    world.refuse(address="2001:db8::1")
    world.refuse(address="2001:db8::2", reason="another reason")
    world.refuse(client="Other", address="2001:db8::1")

    first, second = sorted(world.kept(), key=lambda row: row.client)
    assert (first.client, first.count, first.network, first.address) == ("Chat", 2, "2001:db8::/64", "2001:db8::2")
    assert (first.reason, first.last_at - first.first_at) == ("another reason", 1)
    assert (second.client, second.count) == ("Other", 1)


def test_a_restart_counts_on(world: World) -> None:
    world.refuse()
    world.log.close()
    world.again()
    world.refuse()

    assert [row.count for row in world.kept()] == [2]


def test_one_network_pushes_out_its_own_alone(world: World) -> None:
    world.refuse(client="Claude", address="198.51.100.1")
    for number in range(4 * MAX_ROWS):
        world.refuse(client=f"client {number}", address="203.0.113.7")

    rows = world.kept()
    assert len(rows) == MAX_ROWS
    assert [row.client for row in rows if row.address == "198.51.100.1"] == ["Claude"]
    assert rows[0].client == f"client {4 * MAX_ROWS - 1}"


@pytest.mark.parametrize("network", ["203.0.{}.{}", "2001:db8:{}:{}::1"])
def test_who_has_many_networks_at_one_provider_pushes_out_no_other(world: World, network: str) -> None:
    world.refuse(client="Claude", address="198.51.100.1")
    for number in range(4 * MAX_ROWS):
        world.refuse(client="x", address=network.format(number // 100, number % 100))

    rows = world.kept()
    assert len(rows) == MAX_ROWS
    assert [row.client for row in rows if row.address == "198.51.100.1"] == ["Claude"]


def test_a_storm_costs_the_event_loop_little_for_each_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2 * MAX_ROWS):
        world.refuse(address=f"198.51.{number}.1")
    counted = Mock(wraps=ipaddress.ip_network)
    monkeypatch.setattr(ipaddress, "ip_network", counted)

    for number in range(10):
        world.refuse(address=f"198.51.100.{number}")

    assert counted.call_count <= 10, "the addresses of all rows were looked at with each"


def test_one_kind_takes_no_room_from_another(world: World) -> None:
    for kind in KINDS:
        world.refuse(kind, "Claude")
    for number in range(4 * MAX_ROWS):
        world.refuse("origin", "x", f"198.{number}.0.1")

    kept = {row.kind for row in world.kept() if row.client == "Claude"}
    assert kept == set(KINDS) - {"origin"}


def test_what_strangers_write_is_cleaned_and_cut(world: World) -> None:
    world.refuse(client="\x1b[31mred\n" + "x" * 100_000, address="y" * 1000, reason="z" * 1000)

    (row,) = world.kept()
    assert "\x1b" not in row.client
    assert "\n" not in row.client
    assert (len(row.client), len(row.address), len(row.reason)) == (80, 64, 500)


def test_what_is_old_is_forgotten(world: World) -> None:
    world.refuse(client="old")
    world.clock.advance(KEPT_SECONDS + 1)
    world.refuse(client="new")

    assert [row.client for row in world.kept()] == ["new"]
    world.log.close()
    world.again()
    assert [row.client for row in world.kept()] == ["new"]


def test_a_storm_writes_few_lines_of_audit(world: World) -> None:
    for number in range(200):
        world.refuse(client=f"client {number}")
    world.refuse("origin", "https://evil.example.org")

    first, *others = world.events
    assert (first.event, first.outcome, first.client_name) == ("client-refused", "refused", "client 0")
    assert (first.address, first.details["refusal"]) == ("203.0.113.7", "window")
    assert len(others) == AUDITED.attempts
    assert others[-1].details["refusal"] == "origin"


async def test_a_storm_is_written_at_most_once_in_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    writes: list[int] = []
    flush = world.log.flush

    def counted() -> bool:
        writes.append(1)
        return flush()

    monkeypatch.setattr(world.log, "flush", counted)
    monkeypatch.setattr("opencode_gateway.refusal_log.WRITE_SECONDS", 3600.0)

    world.refuse()
    await eventually_async(lambda: bool(world_rows(tmp_path)))
    for number in range(500):
        world.refuse(client=f"client {number}")

    assert len(writes) == 1
    assert len(world_rows(tmp_path)) == 1
    world.log.close()
    assert len(world_rows(tmp_path)) == MAX_ROWS


def world_rows(directory: Path) -> list[Any]:
    store = Store(directory / FILE_NAME)
    try:
        return list_refusals(store)
    finally:
        store.close()


def test_what_cannot_be_written_is_written_later(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def locked(*_: object, **__: object) -> None:
        raise StoreError("the file is locked")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "transaction", locked)
        world.refuse()
        assert not world.log.flush()
    assert "cannot be written" in caplog.text

    assert [row.count for row in world.kept()] == [1]


# What clients and people are told


def told(answer: httpx.Response) -> str:
    """Return what a client shows of a refusal: it is of RFC 6749's characters."""
    description: str = answer.json()["error_description"]
    assert OAUTH_TEXT.fullmatch(description), description
    return description


@pytest.fixture
def refusals(server: AuthorizationServer) -> list[Refusal]:
    """What `server` reports."""
    return server.refusals


async def test_a_registration_outside_the_window_is_told_the_command(
    server: AuthorizationServer, refusals: list[Refusal]
) -> None:
    answer = await server.register(client_name="Codex\x1b")

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
    assert "opencode-gateway clients allow" in told(answer)
    assert [(each.kind, each.address) for each in refusals] == [("window", "127.0.0.1")]
    assert "Codex" in refusals[0].client
    assert "clients allow" in refusals[0].remedy


async def test_a_redirect_address_that_is_not_allowed_is_told_the_setting(
    server: AuthorizationServer, refusals: list[Refusal]
) -> None:
    server.open_window()

    answer = await server.register(client_name="Editor", redirect_uris=["http://127.0.0.1:1234/callback"])

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_redirect_uri")
    assert "clients." in told(answer)
    assert [(each.kind, each.client) for each in refusals] == [("redirect", "Editor")]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"redirect_uris": [CALLBACK], "grant_types": ["refresh_token"]}, "grant_types"),
        ({"redirect_uris": 1}, "redirect"),
    ],
)
async def test_a_registration_that_is_not_in_order_is_reported(
    server: AuthorizationServer, refusals: list[Refusal], metadata: dict[str, object], words: str
) -> None:
    server.open_window()

    answer = await server.http.post("/register", json={"client_name": "Odd", **metadata})

    assert answer.status_code == 400
    assert words in answer.json()["error_description"]
    assert [(each.kind, each.client) for each in refusals] == [("request", "Odd")]


async def test_a_persons_browser_shows_reason_and_command(
    server: AuthorizationServer, refusals: list[Refusal]
) -> None:
    server.http.headers["accept"] = "text/html"

    answer = await server.authorize("https://claude.ai/oauth/client", proof().challenge)

    assert answer.status_code == 400
    assert "no new client is admitted now" in answer.text
    assert "<code>sudo opencode-gateway clients allow</code>" in answer.text
    assert [(each.kind, each.client) for each in refusals] == [("window", "https://claude.ai/oauth/client")]


async def test_a_redirect_at_the_last_moment_is_reported_with_the_clients_name(
    server: AuthorizationServer, refusals: list[Refusal]
) -> None:
    client_id = await server.registered(client_name="Claude")

    answer = await server.authorize(client_id, proof().challenge, redirect_uri="https://evil.example/")

    assert "clients.redirect_uris" in told(answer)
    assert [(each.kind, each.client) for each in refusals] == [("redirect", "Claude")]


async def test_an_error_that_goes_to_the_client_is_reported_too(
    server: AuthorizationServer, refusals: list[Refusal]
) -> None:
    client_id = await server.registered(client_name="Claude")

    answer = await server.authorize(client_id, proof().challenge, resource="https://other.example/mcp")

    assert answer.status_code == 302
    (refusal,) = refusals
    assert (refusal.kind, refusal.client) == ("request", "Claude")
    assert f"the only resource here is {server.configuration.resource}" in refusal.reason


async def test_token_and_revocation_refusals_are_reported(
    server: AuthorizationServer, refusals: list[Refusal]
) -> None:
    client_id = await server.registered(client_name="Claude")

    assert (await server.refresh(client_id, "nothing")).status_code == 400
    assert (await server.refresh("nobody", "nothing")).status_code == 401
    assert (await server.http.post("/revoke", data={"client_id": "nobody", "token": "x"})).status_code == 401

    assert [(each.kind, each.client) for each in refusals] == [
        ("request", "Claude"),
        ("authentication", "nobody"),
        ("authentication", "nobody"),
    ]
    assert all(each.remedy for each in refusals)


async def test_what_succeeds_is_no_refusal(server: AuthorizationServer, refusals: list[Refusal]) -> None:
    client_id = await server.registered()
    tokens = await server.tokens(client_id)
    await server.refresh(client_id, tokens["refresh_token"])

    assert refusals == []


def test_no_text_leaves_the_characters_of_oauth() -> None:
    refusal = Refusal(kind="request", reason='a "quoted" \\ ümlaut\n' * 100, remedy="run `it`")

    assert OAUTH_TEXT.fullmatch(refusal.told)


# The owner


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductGateway]:
    with ProductGateway(tmp_path_factory.mktemp("product"), behind_proxy=True) as running:
        yield running


def test_the_owner_lists_what_the_running_service_refused(product: ProductGateway) -> None:
    headers = {"Content-Type": "application/json", "X-Forwarded-For": "203.0.113.7"}
    metadata = b'{"client_name":"Cursor\\u001b[2J","redirect_uris":["https://claude.ai/api/mcp/auth_callback"]}'

    assert product.post("/register", metadata, headers)[0] == 400
    assert product.post("/register", metadata, headers)[0] == 400
    product.request("POST", "/token", {"Origin": "https://evil.example.org"})
    product.get("/mcp", Host="other.example.org")

    eventually(lambda: len(product.lists("refusals")) == 3, "the refusals", within=20)
    by_kind = {row["kind"]: row for row in product.lists("refusals")}
    assert set(by_kind) == {"window", "origin", "host"}
    eventually(lambda: {row["kind"]: row for row in product.lists("refusals")}["window"]["count"] == 2, "the count")
    window = by_kind["window"]
    assert (window["address"], "Cursor" in window["client"]) == ("203.0.113.7", True)
    assert "clients allow" in window["remedy"]
    assert by_kind["origin"]["client"] == "https://evil.example.org"
    assert "public_url" in by_kind["host"]["remedy"]

    shown = product.owner("refusals")
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout
    assert "203.0.113.7" in shown.stdout
    assert "clients.origins" in shown.stdout
    first, reason, remedy = product.owner("refusals", "--last", "1").stdout.splitlines()
    assert re.match(r"[-\d]+ [:\d]+ UTC  (window|origin|host)  .+ from .+, [12] times?$", first)
    assert reason.startswith("    ")
    assert remedy.startswith("    what helps: ")
    assert {line["refusal"] for line in product.audit() if line["event"] == "client-refused"} == set(by_kind)


def test_what_was_refused_last_is_written_when_the_service_ends(tmp_path: Path) -> None:
    gateway = ProductGateway(tmp_path / "gateway")
    assert gateway.owner("refusals").stdout == "No client was refused in the last 30 days.\n"
    with gateway:
        for number in range(5):
            gateway.request("POST", "/token", {"Origin": f"https://{number}.example.org"})

    assert len(gateway.lists("refusals")) == 5
