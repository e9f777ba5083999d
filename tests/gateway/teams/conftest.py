"""Fixtures of sign-in at an identity provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.gateway.certificates import make_certificate
from support.gateway.fake_identity_provider import FakeIdentityProvider
from support.gateway.team_gateway import TeamGateway, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opencode_gateway.configuration import Configuration
    from support.gateway.team_gateway import Make


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def provider(tls: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIdentityProvider]:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls[0]))
    with FakeIdentityProvider(*tls) as running:
        yield running


@pytest.fixture
def configure(
    tmp_path: Path, provider: FakeIdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Configuration]:
    def configured(mode: str = "oidc", **changed: Any) -> Configuration:
        return settings(tmp_path, mode, provider, monkeypatch, **changed)

    return configured


@pytest.fixture
def gateway(tls: tuple[Path, Path], configure: Callable[..., Configuration]) -> Make:
    def made(mode: str = "oidc", **changed: Any) -> TeamGateway:
        return TeamGateway(configure(mode, **changed), *tls)

    return made
