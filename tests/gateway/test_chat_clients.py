"""The SDK's own OAuth client against the gateway's sign-in, over TLS and through the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from mcp.client.auth import OAuthRegistrationError

from opencode_gateway import machine_tokens
from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.oauth import enrolment
from opencode_gateway.oauth.sessions import list_sessions
from opencode_gateway.people.users import Users
from opencode_gateway.store import FILE_NAME, Store
from support.gateway.authorization import CHEAP_HASH, Clock
from support.gateway.chat_client import Memory, SignIn, signing_in
from support.gateway.fake_documents import document_host
from support.gateway.person import Person

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from mcp.shared.auth import TokenEndpointAuthMethod


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    Users(tmp_path / "users.json").add("ann", CHEAP_HASH, CAPABILITIES)
    store = Store(tmp_path / FILE_NAME)
    yield store
    store.close()


@pytest.fixture
async def sign_in(tmp_path: Path, store: Store) -> AsyncIterator[SignIn]:
    async with signing_in(tmp_path, store) as sign_in:
        yield sign_in


def open_window(store: Store) -> None:
    enrolment.open_window(store, minutes=10, now=Clock()())


async def test_a_client_registers_logs_in_and_calls_a_tool(sign_in: SignIn, store: Store) -> None:
    open_window(store)
    memory, person = Memory(), Person(sign_in.trust)

    said = await sign_in.who(sign_in.oauth(memory, person))

    assert said["subject"] == said["login"] == "ann"
    assert said["client_name"] == "SDK"
    assert said["kind"] == "password"
    assert said["scopes"] == list(CAPABILITIES)
    assert all("SDK" in page for page in person.seen)
    assert memory.client is not None
    assert memory.client.client_secret is None


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
async def test_a_client_that_wants_a_secret_gets_in_with_it_and_refreshes(
    sign_in: SignIn, store: Store, method: TokenEndpointAuthMethod
) -> None:
    open_window(store)
    memory = Memory()
    oauth = sign_in.oauth(memory, Person(sign_in.trust), method=method)

    await sign_in.who(oauth)
    assert memory.client is not None
    assert memory.client.token_endpoint_auth_method == method
    assert memory.client.client_secret
    assert memory.tokens is not None
    first = memory.tokens.access_token
    oauth.context.token_expiry_time = 1.0  # as it will be tomorrow
    await sign_in.who(oauth)

    assert memory.tokens.access_token != first
    assert len(list_sessions(store)) == 1


async def test_it_goes_on_with_its_tokens_after_a_restart(tmp_path: Path, store: Store) -> None:
    open_window(store)
    memory = Memory()
    async with signing_in(tmp_path, store) as sign_in:
        await sign_in.who(sign_in.oauth(memory, Person(sign_in.trust)))
        port = int(sign_in.url.rsplit(":", 1)[1])
    assert memory.tokens is not None
    again = Store(store.path)

    async with signing_in(tmp_path, again, public_url=f"https://localhost:{port}") as sign_in:
        said = await sign_in.who(None, Authorization=f"Bearer {memory.tokens.access_token}", Host=f"localhost:{port}")

    assert said["subject"] == "ann"
    again.close()


async def test_it_refreshes_a_token_that_is_over(sign_in: SignIn, store: Store) -> None:
    open_window(store)
    memory, person = Memory(), Person(sign_in.trust)
    oauth = sign_in.oauth(memory, person)
    await sign_in.who(oauth)
    assert memory.tokens is not None
    first = memory.tokens.access_token
    pages = len(person.seen)
    oauth.context.token_expiry_time = 1.0  # as it will be tomorrow

    await sign_in.who(oauth)

    assert memory.tokens.access_token != first
    assert len(person.seen) == pages
    assert len(list_sessions(store)) == 1


async def test_outside_the_window_it_is_told_what_the_owner_must_do(sign_in: SignIn) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await sign_in.who(sign_in.oauth(Memory(), Person(sign_in.trust)))

    errors = caught.value.subgroup(OAuthRegistrationError)
    assert errors is not None
    assert "clients allow" in repr(errors)


async def test_a_client_with_a_document_needs_no_registration(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_dir = tmp_path / "host"
    host_dir.mkdir()
    async with (
        document_host(host_dir, monkeypatch) as host,
        signing_in(tmp_path, store, clients={"client_id_hosts": [host.netloc]}) as sign_in,
    ):
        client_id = host.put_client("/oauth/client.json", client_name="Chat")
        open_window(store)
        memory, person = Memory(), Person(sign_in.trust)

        said = await sign_in.who(sign_in.oauth(memory, person, client_metadata_url=client_id))

    assert said["client_name"] == "Chat"
    assert memory.client is not None
    assert memory.client.client_id == client_id
    assert "chat.example" in person.seen[-1]
    (client,) = enrolment.list_clients(store)
    assert client.document


async def test_a_machine_needs_only_its_token(sign_in: SignIn, store: Store) -> None:
    token = machine_tokens.add(store, "backup", ["observe"], now=0.0)

    said = await sign_in.who(None, Authorization=f"Bearer {token}")

    assert (said["subject"], said["kind"], said["scopes"]) == ("backup", "token", ["observe"])


async def test_while_nobody_can_say_whether_a_token_is_good_it_is_not_called_bad(
    tmp_path: Path, sign_in: SignIn, store: Store
) -> None:
    open_window(store)
    memory = Memory()
    await sign_in.who(sign_in.oauth(memory, Person(sign_in.trust)))
    assert memory.tokens is not None
    assert memory.client is not None
    users = (tmp_path / "users.json").read_text()
    (tmp_path / "users.json").write_text("{")
    headers = {"Authorization": f"Bearer {memory.tokens.access_token}"}
    form = {
        "grant_type": "refresh_token",
        "client_id": memory.client.client_id,
        "refresh_token": str(memory.tokens.refresh_token),
    }

    async with httpx.AsyncClient(verify=sign_in.trust, trust_env=False) as http:
        called = await http.post(f"{sign_in.url}/mcp", headers=headers, json={})
        refreshed = await http.post(f"{sign_in.url}/token", data=form)
        (tmp_path / "users.json").write_text(users)
        again = await http.post(f"{sign_in.url}/token", data=form)

    assert (called.status_code, refreshed.status_code) == (503, 503)
    assert refreshed.json()["error"] == "temporarily_unavailable"
    assert again.status_code == 200
    said = await sign_in.who(None, **headers)
    assert said["subject"] == "ann"
