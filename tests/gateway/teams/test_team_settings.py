"""What stops a gateway with an identity provider at its start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway.authentication import build_auth
from opencode_gateway.errors import ConfigError, StoreError
from opencode_gateway.sign_in.provider import KEY_FILE
from opencode_gateway.store import FILE_NAME, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opencode_gateway.configuration import Configuration
    from support.gateway.fake_identity_provider import FakeIdentityProvider


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
        build_auth(configure(), store)


def test_there_is_no_gateway_while_the_provider_cannot_be_reached(
    configure: Callable[..., Configuration], provider: FakeIdentityProvider, store: Store
) -> None:
    configuration = configure()
    provider.stop()

    with pytest.raises(ConfigError, match=r"sign_in\.issuer: .* cannot be reached") as raised:
        build_auth(configuration, store)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("address", ["Ann@example.org", "\u0430nn@example.org", "ann", "ann @example.org", "a@b@c"])
def test_an_address_in_the_list_that_can_never_match_is_told(
    address: str, configure: Callable[..., Configuration], store: Store
) -> None:
    with pytest.raises(ConfigError, match=r"sign_in\.users"):
        build_auth(configure("github", sign_in={"users": {address: ["observe"]}}), store)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601])
def test_a_secret_that_is_open_to_everybody_here_is_refused(
    mode: int, configure: Callable[..., Configuration], store: Store, tmp_path: Path
) -> None:
    configuration = configure("github")
    secret = tmp_path / "client-secret"
    secret.chmod(0o640)
    build_auth(configuration, store)
    secret.chmod(mode)

    with pytest.raises(ConfigError, match="open to everybody here: `sudo chmod o="):
        build_auth(configuration, store)


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\n"])
def test_a_file_that_holds_no_secret_is_refused(
    content: bytes, configure: Callable[..., Configuration], store: Store, tmp_path: Path
) -> None:
    configuration = configure("github")
    (tmp_path / "client-secret").write_bytes(content)

    with pytest.raises(ConfigError, match=r"sign_in\.client_secret_file"):
        build_auth(configuration, store)


def test_a_secret_file_that_is_missing_is_told(
    configure: Callable[..., Configuration], store: Store, tmp_path: Path
) -> None:
    configuration = configure("github")
    (tmp_path / "client-secret").unlink()

    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        build_auth(configuration, store)


def test_the_key_is_made_once_and_is_nobody_else_s(
    configure: Callable[..., Configuration], store: Store, tmp_path: Path
) -> None:
    configuration = configure("github")
    build_auth(configuration, store)
    key = tmp_path / KEY_FILE
    made = key.read_bytes()

    build_auth(configuration, store)

    assert key.read_bytes() == made
    assert key.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    key.chmod(0o640)
    with pytest.raises(StoreError, match="open to others"):
        build_auth(configuration, store)
