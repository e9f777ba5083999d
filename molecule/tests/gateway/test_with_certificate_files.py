"""Certificates of the owner's own in place of Caddy's. After the chain, which trusts Caddy's authority."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from support.hosts.scenario import play

if TYPE_CHECKING:
    from pathlib import Path

    from support.hosts.chain import ScenarioGateway
    from support.hosts.scenario import Machine, ScenarioRelay

pytestmark = pytest.mark.timeout(600)

_SHOW = """
import socket, ssl, sys
trust = ssl.create_default_context(cadata=sys.stdin.read())
with trust.wrap_socket(socket.create_connection((sys.argv[1], 443), 20), server_hostname=sys.argv[1]) as connection:
    print(ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True)).strip())
"""


def _pair(directory: Path, name: str, domain: str) -> tuple[Path, Path]:
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    new = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    )
    named = ("-subj", f"/CN={domain}", "-addext", f"subjectAltName=DNS:{domain}")
    subprocess.run([*new, *named, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    return certificate, key


def test_a_pair_that_does_not_match_changes_nothing_and_one_that_does_is_served(
    relay: ScenarioRelay, gateway: ScenarioGateway, desktop: Machine, tmp_path: Path
) -> None:
    certificate, key = _pair(tmp_path, "own", gateway.domain)
    _, other_key = _pair(tmp_path, "other", gateway.domain)
    site = relay.output("cat", "/etc/caddy/opencode-relay/gateway.caddy")

    def bring(key: Path) -> tuple[bool, str]:
        settings = f"relay_tls=files relay_tls_certificate={certificate} relay_tls_key={key}"
        played = play("relay.yml", "--tags", "relay_gateway_caddy", "--extra-vars", settings)
        return played.succeeded, played.said

    succeeded, said = bring(other_key)
    assert not succeeded
    assert "private key does not match public key" in said
    assert relay.output("cat", "/etc/caddy/opencode-relay/gateway.caddy") == site
    assert relay.output("ls", "/etc/caddy/opencode-relay") == "gateway.caddy"

    succeeded, said = bring(key)
    assert succeeded, said
    shown = desktop.host.run("python3", "-c", _SHOW, gateway.domain, stdin=certificate.read_text()).stdout
    assert shown.strip() == certificate.read_text().strip()
    brought = relay.infra.file("/etc/caddy/opencode-relay/key.pem")
    assert (f"{brought.user}:{brought.group}", brought.mode) == ("root:caddy", 0o640)
