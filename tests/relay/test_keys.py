"""Which public keys are taken."""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_relay.errors import EnrolmentError
from opencode_relay.keys import parse_key

if TYPE_CHECKING:
    from pathlib import Path

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAhmCgCTUQunUAcAfcINgDHHsn7cbZO1VOPF5fibE3pD ann@laptop"


@pytest.mark.parametrize(
    ("kind", "bits"), [("ed25519", 0), ("rsa", 3072), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521)]
)
def test_a_key_that_ssh_makes_is_taken_and_known_by_the_fingerprint_that_ssh_shows(
    tmp_path: Path, kind: str, bits: int
) -> None:
    path = tmp_path / "key"
    size = ["-b", str(bits)] if bits else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "ann's key", "-f", str(path)], check=True)
    key = parse_key(path.with_suffix(".pub").read_text().strip())
    shown = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True).stdout
    assert key.fingerprint == shown.split()[1]
    assert str(key) == path.with_suffix(".pub").read_text().removesuffix(" ann's key\n")


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4) + field for field in fields)).decode()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("sk-ssh-ed25519@openssh.com", (b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:")),
        (
            "sk-ecdsa-sha2-nistp256@openssh.com",
            (b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", bytes(65), b"ssh:"),
        ),
    ],
)
def test_a_key_on_a_token_is_taken(kind: str, fields: tuple[bytes, ...]) -> None:
    assert parse_key(f"{kind} {blob(*fields)}").kind == kind


MODULUS_OF_2048_BITS = bytes([0, 255]) + bytes(255)
RSA_2048 = "ssh-rsa " + blob(b"ssh-rsa", b"\x01\x00\x01", MODULUS_OF_2048_BITS)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no public key"),
        ("ssh-ed25519", "no public key"),
        (f"{ED25519}\n{ED25519}", "no public key"),
        (f"{ED25519}\x00", "no public key"),
        (f"{ED25519} {'x' * 9000}", "no public key"),
        (f'command="sh" {ED25519}', "options"),
        (f"restrict {ED25519}", "options"),
        (f"ssh-dss {blob(b'ssh-dss', b'p', b'q', b'g', b'y')}", "must begin with one of ssh-ed25519"),
        (f"ssh-ed25519-cert-v01@openssh.com {blob(b'x')}", "certificates"),
        (ED25519.replace("ssh-ed25519 ", "ssh-rsa "), "damaged"),
        (ED25519.replace("E3pD", "E3"), "damaged"),
        (ED25519.replace("AAAAC3", "AAAA!3"), "damaged"),
        (f"ssh-ed25519 {blob(b'ssh-ed25519', bytes(31))}", "damaged"),
        (f"ssh-ed25519 {blob(b'ssh-ed25519', bytes(32), b'more')}", "damaged"),
        (RSA_2048, "RSA of 2048 bits"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_no_key_of_a_client_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(EnrolmentError, match=why):
        parse_key(text)


@given(st.text(), st.binary())
def test_nothing_but_a_whole_key_is_taken(text: str, noise: bytes) -> None:
    for hostile in (text, f"ssh-ed25519 {text}", f"ssh-rsa {base64.b64encode(noise).decode()}"):
        with pytest.raises(EnrolmentError):
            parse_key(hostile)
