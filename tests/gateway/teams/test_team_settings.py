"""What stops a gateway with an identity provider at its start, and what it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway import teams
from opencode_gateway.errors import ConfigError, StoreError
from opencode_gateway.store import FILE_NAME, Store
from opencode_gateway.teams import state as team_state
from opencode_gateway.teams.state import (
    DEFAULT_SECONDS,
    MAX_BYTES,
    MAX_STRANGERS,
    EntryTooLarge,
    ProviderState,
    encrypted,
)
from support.authorization import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opencode_gateway.configuration import Configuration
    from support.fake_identity_provider import FakeIdentityProvider

TRANSACTIONS = "mcp-oauth-transactions"
TOKENS = "mcp-upstream-tokens"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / FILE_NAME)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"issuer": "https://elsewhere.example"}, "is about another issuer"),
        ({"token_endpoint": "http://localhost/token"}, "names an address that is not https"),
        ({"authorization_endpoint": "http://localhost/authorize"}, "names an address that is not https"),
        ({"jwks_uri": "http://localhost/keys"}, "names an address that is not https"),
        ({"userinfo_endpoint": "http://localhost/userinfo"}, "names an address that is not https"),
        ({"jwks_uri": None}, "is no discovery document"),
        ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "in no way that can be checked"),
    ],
)
def test_there_is_no_gateway_with_a_provider_that(
    changed: dict[str, Any],
    words: str,
    configure: Callable[..., Configuration],
    provider: FakeIdentityProvider,
    store: Store,
) -> None:
    provider.discovery = changed

    with pytest.raises(ConfigError, match=words):
        teams.build(configure(), store)


def test_there_is_no_gateway_while_the_provider_cannot_be_reached(
    configure: Callable[..., Configuration], provider: FakeIdentityProvider, store: Store
) -> None:
    configuration = configure()
    provider.stop()

    with pytest.raises(ConfigError, match=r"sign_in\.issuer: .* cannot be reached") as raised:
        teams.build(configuration, store)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("address", ["Ann@example.org", "\u0430nn@example.org", "ann", "ann @example.org", "a@b@c"])
def test_an_address_in_the_list_that_can_never_match_is_told(
    address: str, configure: Callable[..., Configuration], store: Store
) -> None:
    with pytest.raises(ConfigError, match=r"sign_in\.users"):
        teams.build(configure("github", sign_in={"users": {address: ["observe"]}}), store)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601])
def test_a_secret_that_is_open_to_everybody_here_is_refused(
    mode: int, configure: Callable[..., Configuration], store: Store, tmp_path: Path
) -> None:
    configuration = configure("github")
    secret = tmp_path / "client-secret"
    secret.chmod(0o640)
    teams.build(configuration, store)
    secret.chmod(mode)

    with pytest.raises(ConfigError, match="open to everybody here: `chmod o="):
        teams.build(configuration, store)


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\n"])
def test_a_file_that_holds_no_secret_is_refused(
    content: bytes, configure: Callable[..., Configuration], store: Store, tmp_path: Path
) -> None:
    configuration = configure("github")
    (tmp_path / "client-secret").write_bytes(content)

    with pytest.raises(ConfigError, match=r"sign_in\.client_secret_file"):
        teams.build(configuration, store)


def test_a_secret_file_that_is_missing_is_told(
    configure: Callable[..., Configuration], store: Store, tmp_path: Path
) -> None:
    configuration = configure("github")
    (tmp_path / "client-secret").unlink()

    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        teams.build(configuration, store)


def test_the_key_is_made_once_and_is_nobody_else_s(
    configure: Callable[..., Configuration], store: Store, tmp_path: Path
) -> None:
    configuration = configure("github")
    teams.build(configuration, store)
    key = tmp_path / teams.KEY_FILE
    made = key.read_bytes()

    teams.build(configuration, store)

    assert key.read_bytes() == made
    assert key.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    key.chmod(0o640)
    with pytest.raises(StoreError, match="open to others"):
        teams.build(configuration, store)


# What the proxy keeps.


@pytest.mark.parametrize(
    ("collection", "room"),
    [(TRANSACTIONS, MAX_STRANGERS), ("mcp-consent-csrf-tokens", MAX_STRANGERS), (TOKENS, MAX_STRANGERS + 10)],
)
async def test_a_full_collection_lets_go_of_what_would_have_expired_first(
    collection: str, room: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_state, "MAX_OTHERS", MAX_STRANGERS + 10)
    state = ProviderState(store)
    await state.put("first", {"n": 0}, collection=collection, ttl=500)
    for number in range(room + 5):
        await state.put(f"key {number}", {"n": number}, collection=collection, ttl=900 + number)
    await state.put("elsewhere", {"n": 1}, collection="mcp-jti-mappings", ttl=1)

    with store.transaction() as db:
        count = db.execute("SELECT count(*) FROM provider_state WHERE collection = ?", (collection,)).fetchone()[0]
    assert count == room
    assert await state.get("first", collection=collection) is None
    assert await state.get("key 0", collection=collection) is None
    assert await state.get(f"key {room + 4}", collection=collection) == {"n": room + 4}


async def test_a_source_that_begins_many_logins_pushes_out_its_own_alone(store: Store) -> None:
    source = "owner"
    state = ProviderState(store, source=lambda: source)
    await state.put("owner's", {"n": 0}, collection=TRANSACTIONS, ttl=500)
    source = "stranger"
    for number in range(MAX_STRANGERS + 5):
        await state.put(f"key {number}", {"n": number}, collection=TRANSACTIONS, ttl=900 + number)

    assert await state.get("owner's", collection=TRANSACTIONS) == {"n": 0}
    assert await state.get("key 5", collection=TRANSACTIONS) is None
    assert await state.get("key 6", collection=TRANSACTIONS) == {"n": 6}


async def test_what_has_expired_is_gone_and_makes_room(store: Store) -> None:
    clock = Clock()
    state = ProviderState(store, clock=clock)
    await state.put("old", {"n": 1}, collection=TRANSACTIONS, ttl=900)
    clock.advance(901)

    assert await state.get("old", collection=TRANSACTIONS) is None
    await state.put("new", {"n": 2}, collection=TRANSACTIONS, ttl=900)

    with store.transaction() as db:
        assert db.execute("SELECT count(*) FROM provider_state").fetchone()[0] == 1


async def test_an_entry_without_a_lifetime_has_one(store: Store) -> None:
    clock = Clock()
    state = ProviderState(store, clock=clock)
    await state.put("key", {"n": 1}, collection=TRANSACTIONS)
    clock.advance(DEFAULT_SECONDS - 1)
    assert await state.get("key", collection=TRANSACTIONS) == {"n": 1}

    clock.advance(1)

    assert await state.get("key", collection=TRANSACTIONS) is None


async def test_an_entry_that_is_too_large_is_not_kept(store: Store) -> None:
    state = ProviderState(store)

    with pytest.raises(EntryTooLarge):
        await state.put("large", {"n": "x" * MAX_BYTES}, collection=TRANSACTIONS, ttl=900)


async def test_what_another_key_wrote_is_not_there(store: Store) -> None:
    one, two = b"A" * 43 + b"=", b"B" * 42 + b"A="
    await encrypted(ProviderState(store), one).put("key", {"n": 1}, collection="c", ttl=900)

    assert await encrypted(ProviderState(store), one).get("key", collection="c") == {"n": 1}
    assert await encrypted(ProviderState(store), two).get("key", collection="c") is None
    assert await ProviderState(store).get("key", collection="c") != {"n": 1}
