"""The way of a phone: the public name, the ports of the web, the certificate, and through them to the gateway."""

from __future__ import annotations

import io
import ipaddress
import json
import socket
import ssl
import time
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import psutil

from opencode_common.finding import Finding, fault, note, ok
from opencode_relay.doctor.asking import SECONDS, beside, reason, refusal

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from opencode_relay.doctor.relay import ExaminedGateway, ExaminedRelay

_METADATA: Final = "/.well-known/oauth-protected-resource/mcp"
_MAX_ANSWER: Final = 64 * 1024
_MAX_ADDRESSES: Final = 4
_LEFT: Final = 1 / 6
"""Of a certificate's life: by then a front that renews has done so twice over."""
_LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True)
class SeenAnswer:
    """What answers at an address. `problem`: why nothing of use does; `certificate`: its bytes, if there was one.

    `begins`, `ends`: of its validity, seconds since the epoch.
    """

    problem: str = ""
    kind: str = ""
    """Of the problem: `closed`, `tls`, `untrusted`, `answer`."""
    certificate: bytes = b""
    begins: float = 0.0
    ends: float = 0.0


class _Until(io.RawIOBase):
    """What comes over a connection up to a deadline, however many parts it comes in; then `TimeoutError`."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


def check(relay: ExaminedRelay) -> list[Finding]:
    """Look at the public name, where there is one, and at what answers there."""
    gateway = relay.gateway
    if gateway is None or not gateway.host:
        return []
    addresses = _addresses(gateway)
    if not addresses:
        return [
            fault(
                "dns",
                f"{gateway.host} has no address",
                f"Give it an A record with the address of this relay; `getent ahosts {gateway.host}` shows it then",
            )
        ]
    # All at once: a port that is shut takes its time to be silent.
    plain = {address: beside(partial(refusal, address, 80)) for address in addresses if gateway.has_site}
    asked = {address: beside(partial(_look, gateway, address)) for address in {*addresses, _LOOPBACK}}
    answered = {address: answer() for address, answer in asked.items()}
    seen = {address: answered[address] for address in addresses}
    findings = [where_it_leads(gateway, seen, answered[_LOOPBACK])]
    if plain:
        findings.append(_plain_port({address: answer() for address, answer in plain.items()}))
    return findings + _answers(gateway, seen)


def check_gateway(relay: ExaminedRelay) -> list[Finding]:
    """Ask the gateway behind the front whether it and all servers behind it answer."""
    if relay.gateway is None:
        return []
    remedy = "`systemctl restart opencode-gateway`, and look into `journalctl -u opencode-gateway`"
    connection = HTTPConnection(relay.gateway.listen, timeout=2 * SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        told = answer.read(200).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        why = reason(error) if isinstance(error, OSError) else "no HTTP"
        return [fault("gateway", f"nothing answers at {relay.gateway.listen} ({why})", f"Start it: {remedy}")]
    finally:
        connection.close()
    if answer.status != 200:
        return [fault("gateway", f"it answers {answer.status}: {told!a}", f"Restart it: {remedy}")]
    return [ok("gateway", f"it answers at {relay.gateway.listen}, and so do the servers behind it")]


def _addresses(gateway: ExaminedGateway) -> list[str]:
    try:
        found = socket.getaddrinfo(gateway.host, gateway.port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:_MAX_ADDRESSES]


def _look(gateway: ExaminedGateway, address: str) -> SeenAnswer:
    """Do what a phone does at one address."""
    context = ssl.create_default_context(cafile=str(gateway.authority) if gateway.authority else None)
    try:
        with socket.create_connection((address, gateway.port), SECONDS) as plain:
            return _ask(gateway, context, plain)
    except ssl.SSLCertVerificationError as error:
        # What it is, to tell whether another address has the same.
        return SeenAnswer(error.verify_message, "untrusted", _certificate(gateway, address))
    except ssl.SSLError as error:
        return SeenAnswer((error.reason or "no TLS").lower().replace("_", " "), "tls")
    except OSError as error:
        return SeenAnswer(reason(error), "closed")


def _ask(gateway: ExaminedGateway, context: ssl.SSLContext, plain: socket.socket) -> SeenAnswer:
    with context.wrap_socket(plain, server_hostname=gateway.host) as connection:
        shown = connection.getpeercert() or {}
        begins, ends = (ssl.cert_time_to_seconds(str(shown[key])) for key in ("notBefore", "notAfter"))
        certificate = connection.getpeercert(binary_form=True) or b""
        request = (
            f"GET {_METADATA} HTTP/1.1\r\nHost: {urlsplit(gateway.public_url).netloc}\r\nConnection: close\r\n\r\n"
        )
        try:
            connection.sendall(request.encode())
            # All that it is asked for is its file.
            answer = HTTPResponse(cast("socket.socket", _Until(connection, time.monotonic() + SECONDS)))
            answer.begin()
            content = answer.read(_MAX_ANSWER)
        except (OSError, HTTPException):
            return SeenAnswer("its answer broke off", "answer", certificate, begins, ends)
    problem = (
        "" if _is_ours(gateway, answer.status, content) else f"it answers {answer.status} to what clients ask first"
    )
    return SeenAnswer(problem, "answer" if problem else "", certificate, begins, ends)


def _is_ours(gateway: ExaminedGateway, status: int, content: bytes) -> bool:
    try:
        return status == 200 and json.loads(content)["resource"].rstrip("/") == f"{gateway.public_url}/mcp"
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _certificate(gateway: ExaminedGateway, address: str) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address, gateway.port), SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=gateway.host) as connection,
        ):
            return connection.getpeercert(binary_form=True) or b""
    except OSError:
        return b""


def _own_addresses() -> set[str]:
    return {entry.address.partition("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries}


def where_it_leads(gateway: ExaminedGateway, seen: dict[str, SeenAnswer], at_home: SeenAnswer) -> Finding:
    """Say where the name leads."""
    shown = ", ".join(seen)
    if all(ipaddress.ip_address(address).is_loopback for address in seen):
        return note(
            "dns",
            f"on this host {gateway.host} is {shown}, by its /etc/hosts: what phones are told is not seen from here",
        )
    strange = [address for address in seen if address not in _own_addresses()]
    for address in strange:
        there = seen[address]
        if there.kind == "closed":
            return fault(
                "dns",
                f"{gateway.host} leads to {address}, where nothing is reached from here ({there.problem})",
                f"If it is this relay's, open the ports 80 and {gateway.port} in its cloud's or router's firewall; "
                "else correct the A or AAAA record",
            )
        if there.certificate != at_home.certificate or not there.certificate:
            return fault(
                "dns",
                f"{gateway.host} leads to {address}, where another machine answers",
                "Correct its A and AAAA records, so that all of them lead to this relay",
            )
    here = "which reaches this relay" if strange else "of this host"
    return ok("dns", f"{gateway.host} leads to {shown}, {here}")


def _plain_port(refusals: dict[str, str]) -> Finding:
    for address, why in refusals.items():
        if why:
            return fault(
                "port 80",
                f"{address} is not reached there ({why}), which certificates may be renewed by",
                "`systemctl restart caddy`, and open the port in the firewalls before it",
            )
    return ok("port 80", "it is reached")


def _answers(gateway: ExaminedGateway, seen: dict[str, SeenAnswer]) -> list[Finding]:
    """Say what answers at all addresses: the worst of each kind."""
    closed = [(address, there) for address, there in seen.items() if there.kind == "closed"]
    if closed:
        address, there = closed[0]
        return [
            fault(
                "https",
                f"{address} is not reached at port {gateway.port} ({there.problem})",
                "`systemctl restart caddy`, and open the port in the firewalls before it",
            )
        ]
    for there in seen.values():
        if there.kind == "tls":
            return [
                fault(
                    "certificate",
                    f"there is none for {gateway.host} ({there.problem})",
                    "It comes by itself once the name leads here and the ports 80 and 443 are open from everywhere; "
                    "`journalctl -u caddy` says what is missing",
                )
            ]
        if there.kind == "untrusted":
            return [
                fault(
                    "certificate",
                    f"it is not trusted: {there.problem}",
                    "`journalctl -u caddy` says why it was not renewed; with relay_tls `files` give one of "
                    "an authority that phones know",
                )
            ]
    findings = [
        how_long_it_lasts(min(seen.values(), key=lambda there: there.ends), is_own=gateway.authority is not None)
    ]
    wrong = [there.problem for there in seen.values() if there.problem]
    url = f"{gateway.public_url}/mcp"
    if wrong:
        remedy = (
            "`journalctl -u opencode-gateway -u caddy`; where it is another site's answer, correct Caddy's settings"
        )
        return [*findings, fault("https", f"{url}: {wrong[0]}", f"Look into {remedy}")]
    return [*findings, ok("https", f"{url} is answered by the gateway")]


def how_long_it_lasts(there: SeenAnswer, *, is_own: bool) -> Finding:
    """Say for how long the certificate is good. `is_own`: an authority of this relay's own gave it."""
    left = there.ends - time.time()
    shown = f"{left / 86400:.0f} days" if left > 2 * 86400 else f"{left / 3600:.0f} hours"
    if left < _LEFT * (there.ends - there.begins):
        return fault(
            "certificate",
            f"it is valid for {shown} only, and was not renewed",
            "`journalctl -u caddy` says why; with relay_tls `files` bring a new one by the playbook relay.yml",
        )
    whose = "of an authority of this relay's own, which phones must be told to trust" if is_own else "trusted"
    return ok("certificate", f"it is {whose}, and valid for {shown}")
