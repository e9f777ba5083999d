"""What `opencode-relay doctor` says of the way that a phone takes: name, ports, certificate, gateway."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from opencode_relay.doctor import web
from opencode_relay.doctor.relay import ExaminedGateway
from opencode_relay.errors import RelayConfigError
from relay.examined import looked_at, one
from support.chat.fake_dripping import FakeDripping
from support.gateway.certificates import make_certificate
from support.gateway.public_gateway import PublicGateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from relay.provisioned import ProvisionedRelay

SITE = ExaminedGateway("https://relay.example.org", "127.0.0.1:8790", has_site=True)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublicGateway]:
    registry = tmp_path_factory.mktemp("registry")
    with PublicGateway(tmp_path_factory.mktemp("gateway"), registry) as gateway:
        yield gateway


def front(public: PublicGateway, **changes: object) -> ExaminedGateway:
    authority = public.caddy.authority
    gateway = ExaminedGateway(public.front_url, f"127.0.0.1:{public.port}", has_site=False, authority=authority)
    return replace(gateway, **changes)  # type: ignore[arg-type] # a test's own words


def test_a_gateway_that_answers_through_its_front_is_well(relay: ProvisionedRelay, public: PublicGateway) -> None:
    there = looked_at(relay, front(public))
    found = [*web.check(there), *web.check_gateway(there)]
    assert [(finding.check, finding.state) for finding in found] == [
        ("dns", "note"),
        ("certificate", "ok"),
        ("https", "ok"),
        ("gateway", "ok"),
    ]
    assert "what phones are told is not seen from here" in found[0].text


def test_a_certificate_of_an_authority_that_nobody_knows_is_named(
    relay: ProvisionedRelay, public: PublicGateway
) -> None:
    found = web.check(looked_at(relay, front(public, authority=None)))
    assert one(found, "certificate").state == "fault"
    assert "it is not trusted: " in one(found, "certificate").text


def test_a_front_without_a_certificate_for_the_name_is_named(relay: ProvisionedRelay, public: PublicGateway) -> None:
    # Caddy has none for the address, and ends the handshake.
    other = public.front_url.replace("localhost", "127.0.0.1")
    found = one(web.check(looked_at(relay, front(public, public_url=other))), "certificate")
    assert (found.state, "there is none for 127.0.0.1" in found.text) == ("fault", True)


def test_a_front_that_serves_something_else_is_named(relay: ProvisionedRelay, public: PublicGateway) -> None:
    public.stop()
    try:
        there = looked_at(relay, front(public))
        found = web.check(there)
        behind = web.check_gateway(there)[0]
    finally:
        public.start()
    assert one(found, "https").state == "fault"
    assert "it answers 502" in one(found, "https").text
    assert "journalctl -u opencode-gateway" in one(found, "https").remedy
    assert (behind.state, "(connection refused)" in behind.text) == ("fault", True)


def test_ports_that_are_shut_and_a_name_that_leads_nowhere_are_named(relay: ProvisionedRelay) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nothing listens there
        gateway = replace(SITE, public_url=f"https://localhost:{taken.getsockname()[1]}", has_site=False)
        found = one(web.check(looked_at(relay, gateway)), "https")
    assert (found.state, "(connection refused)" in found.text) == ("fault", True)
    nowhere = replace(SITE, public_url="https://relay.invalid")
    assert [finding.text for finding in web.check(looked_at(relay, nowhere))] == ["relay.invalid has no address"]
    assert web.check(looked_at(relay, replace(SITE, public_url="http://127.0.0.1:8790"))) == []


HANGING = """
import sys, threading
from opencode_relay.doctor.asking import beside
beside(threading.Event().wait)
sys.exit(3)
"""


def test_what_hangs_keeps_no_program_from_ending() -> None:
    assert subprocess.run([sys.executable, "-c", HANGING], timeout=60, check=False).returncode == 3


LOOKING = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from opencode_relay.doctor import web
from opencode_relay.doctor.relay import ExaminedGateway

gateway = ExaminedGateway(sys.argv[1], "127.0.0.1:1", has_site=False, authority=Path(sys.argv[2]))
print(json.dumps([[finding.check, finding.text] for finding in web.check(SimpleNamespace(gateway=gateway))]))
"""


@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nX-Header: ", b"x"),
    ],
    ids=["content", "header"],
)
def test_a_front_that_never_ends_its_answer_is_named_and_the_program_ends(
    tmp_path: Path, beginning: bytes, drop: bytes
) -> None:
    certificate, key = make_certificate(tmp_path, "localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with FakeDripping(tls, beginning, drop) as front:
        url = f"https://localhost:{front.port}"
        command = [sys.executable, "-c", LOOKING, url, str(certificate)]
        looked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ["https", f"{url}/mcp: its answer broke off"] in json.loads(looked.stdout)


HERE = web.SeenAnswer(certificate=b"ours")


@pytest.mark.parametrize(
    ("there", "state", "text"),
    [
        (HERE, "ok", "relay.example.org leads to 198.51.100.7, which reaches this relay"),
        (web.SeenAnswer(certificate=b"theirs"), "fault", "where another machine answers"),
        (web.SeenAnswer("no answer", "closed"), "fault", "where nothing is reached from here (no answer)"),
    ],
)
def test_an_address_that_is_none_of_the_hosts_is_this_relays_if_it_answers_so(
    there: web.SeenAnswer, state: str, text: str
) -> None:
    found = web.where_it_leads(SITE, {"198.51.100.7": there}, HERE)
    assert (found.state, text in found.text) == (state, True)


def test_a_certificate_that_was_not_renewed_is_named_whatever_its_whole_life() -> None:
    now = time.time()
    for life, left, state in (
        (90, 60, "ok"),
        (90, 14, "fault"),
        (0.5, 0.2, "ok"),
        (0.5, 0.05, "fault"),
        (90, -1, "fault"),
    ):
        begins, ends = now - (life - left) * 86400, now + left * 86400
        assert web.how_long_it_lasts(web.SeenAnswer(begins=begins, ends=ends), is_own=False).state == state


def test_what_there_is_to_look_at_is_read_from_what_the_roles_write(tmp_path: Path) -> None:
    settings, site = tmp_path / "gateway.json", tmp_path / "gateway.caddy"
    assert ExaminedGateway.read(settings, site) is None
    settings.write_text('{"public_url": "https://relay.example.org", "listen": "127.0.0.1:8791", "audit": {}}')
    gateway = ExaminedGateway.read(settings, site)
    assert gateway == ExaminedGateway("https://relay.example.org", "127.0.0.1:8791", has_site=False)
    assert gateway is not None
    assert (gateway.host, gateway.port) == ("relay.example.org", 443)
    site.write_text("relay.example.org {\n\ttls internal\n}\n")
    gateway = ExaminedGateway.read(settings, site)
    assert gateway is not None
    assert (gateway.has_site, gateway.authority is not None) == (True, True)
    settings.write_text("[]")
    with pytest.raises(RelayConfigError, match="is damaged: run the playbook"):
        ExaminedGateway.read(settings, site)
