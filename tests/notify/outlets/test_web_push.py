"""Web Push: what a browser's side decrypts and a push service verifies, by other libraries than ours."""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from opencode_notify.errors import BadOutlet
from opencode_notify.kinds import outlet_of
from opencode_notify.notice import ACCEPTED, Notice
from opencode_notify.web_push_crypto import MAX_PLAINTEXT, encrypted, new_vapid_key
from support.pages.fake_browser import FakeBrowser, text

if TYPE_CHECKING:
    from support.pages.fake_receiver import Receiver

ASK = Notice(id="a3.open", title="laptop needs you ✓", body="shell", priority=4, url="https://relay.example.org/a/3")


def unpacked(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def settings_of(browser: FakeBrowser, server: Receiver) -> dict[str, object]:
    return {
        "kind": "web_push",
        **browser.subscription(server),
        "vapid_key": new_vapid_key(),
        "contact": "mailto:ann@example.org",
    }


async def test_the_browser_reads_the_notice(server: Receiver) -> None:
    browser = FakeBrowser()
    assert await outlet_of(settings_of(browser, server), server.network()).send(ASK) == ACCEPTED
    (got,) = server.got
    assert browser.read(got) == {
        "id": "a3.open",
        "tag": "a3.open",
        "title": "laptop needs you ✓",
        "body": "shell",
        "url": "https://relay.example.org/a/3",
        "priority": 4,
        "withdrawn": False,
    }
    assert got.path == "/push/very-secret"
    assert {name: got.headers[name] for name in ("content-encoding", "urgency", "ttl")} == {
        "content-encoding": "aes128gcm",
        "urgency": "high",
        "ttl": "14400",
    }


async def test_the_push_service_verifies_who_sends(server: Receiver) -> None:
    await outlet_of(settings_of(FakeBrowser(), server), server.network()).send(ASK)
    scheme, _, rest = server.got[0].headers["authorization"].partition(" ")
    given = dict(part.strip().split("=", 1) for part in rest.split(","))
    signed, _, signature = given["t"].rpartition(".")
    raw = unpacked(signature)
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), unpacked(given["k"]))
    halves = (int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key.verify(utils.encode_dss_signature(*halves), signed.encode(), ec.ECDSA(SHA256()))
    header, claims = (json.loads(unpacked(part)) for part in signed.split("."))
    assert (scheme, header["alg"], header["typ"]) == ("vapid", "ES256", "JWT")
    assert (claims["aud"], claims["sub"]) == (server.url(), "mailto:ann@example.org")
    assert time.time() < claims["exp"] <= time.time() + 86_400


async def test_a_repeat_takes_the_place_of_the_first_and_a_withdrawal_says_so(server: Receiver) -> None:
    browser = FakeBrowser()
    outlet = outlet_of(settings_of(browser, server), server.network())
    await outlet.send(ASK)
    await outlet.send(ASK)
    await outlet.withdraw(ASK)
    await outlet.send(replace(ASK, id="a4.open"))
    topics = [got.headers["topic"] for got in server.got]
    assert topics[0] == topics[1] == topics[2] != topics[3]
    assert all(len(topic) == 32 for topic in topics)
    assert [browser.read(got)["withdrawn"] for got in server.got] == [False, False, True, False]


@pytest.mark.parametrize("letter", ["x", "é", "\x01", "😀", "\ud800"])
async def test_a_long_text_is_cut_so_that_the_push_fits(server: Receiver, letter: str) -> None:
    browser = FakeBrowser()
    outlet = outlet_of(settings_of(browser, server), server.network())
    assert await outlet.send(replace(ASK, body=letter * 100_000, title="t" * 10_000)) == ACCEPTED
    (got,) = server.got
    assert 3_900 < len(got.body) <= 4_096
    assert browser.read(got)["body"].endswith("…")


async def test_what_cannot_be_made_to_fit_is_not_sent(server: Receiver) -> None:
    receipt = await outlet_of(settings_of(FakeBrowser(), server), server.network()).send(replace(ASK, id="x" * 5_000))
    assert "too long" in receipt.reason
    assert server.got == []


@pytest.mark.parametrize("status", [404, 410])
async def test_a_subscription_that_ended_is_gone(server: Receiver, status: int) -> None:
    server.behaviour = status
    receipt = await outlet_of(settings_of(FakeBrowser(), server), server.network()).send(ASK)
    assert (receipt.gone, receipt.retry) == (True, False)
    assert "very-secret" not in receipt.reason


def test_what_is_longer_than_a_record_is_refused_and_the_longest_fits() -> None:
    browser = FakeBrowser()
    longest = os.urandom(MAX_PLAINTEXT)
    body = encrypted(longest, browser.point, browser.secret)
    assert (browser.opened(body), len(body)) == (longest, 4_096)
    with pytest.raises(ValueError, match="at most"):
        encrypted(longest + b"x", browser.point, browser.secret)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("p256dh", "AAAA"),
        ("p256dh", text(b"\x04" + bytes(64))),
        ("p256dh", "no base64!"),
        ("auth", "AAAA"),
        ("vapid_key", "very-secret"),
        ("contact", "ann"),
        ("endpoint", "http://very-secret.example.org/"),
    ],
)
def test_a_wrong_subscription_is_named_and_not_quoted(server: Receiver, name: str, value: str) -> None:
    with pytest.raises(BadOutlet) as refused:
        outlet_of({**settings_of(FakeBrowser(), server), name: value})
    assert str(refused.value).startswith(f"{name}: ")
    assert "very-secret" not in str(refused.value)
