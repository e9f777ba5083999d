"""Passkeys in a real Chromium at a real gateway: added, a login by one, and a decision that is signed.

The server behind it is fake. What answers that are bent come to is in `test_passkeys`.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from playwright.sync_api import expect
from webauthn.helpers import decode_credential_public_key, decoded_public_key_to_cryptography

from opencode_gateway.pages.account import FRESH_SECONDS
from support.gateway.browser import CONTRASTS, DESKTOP, chromium, fits, screenshot
from support.gateway.fake_authenticator import decoded
from support.gateway.passkey_devices import Device, PasskeyRelay, TakenOver, signed
from support.pages.fake_asks import DIGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP, "color_scheme": "light"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
        "color_scheme": "dark",
    },
}
REFUSED = (403, "/asks/a3")
TAKEN = (200, "/inbox")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def _relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PasskeyRelay]:
    relay = PasskeyRelay(tmp_path_factory.mktemp("passkeys"))
    with relay.gateway:
        yield relay
    relay.store.close()


@pytest.fixture
def relay(_relay: PasskeyRelay) -> PasskeyRelay:
    _relay.renew()
    return _relay


@pytest.fixture
def device(browser: Browser, relay: PasskeyRelay) -> Iterator[Callable[..., Device]]:
    """Make a new browser with an authenticator, and nothing in either."""
    with ExitStack() as stack:

        def make(**options: Any) -> Device:
            options.setdefault("viewport", DESKTOP)
            context = stack.enter_context(browser.new_context(locale="en", timezone_id="UTC", **options))
            return Device(context.new_page(), relay)

        yield make


def looks_right(page: Page, name: str) -> None:
    fits(page)
    assert page.evaluate(CONTRASTS) == []
    screenshot(page, f"passkeys-{name}")


@pytest.mark.parametrize("size", SIZES)
def test_from_the_first_passkey_to_a_decision_that_the_log_proves(
    relay: PasskeyRelay, device: Callable[..., Device], size: str
) -> None:
    phone = device(**SIZES[size])
    page = phone.page
    phone.goto("/account")
    phone.type_password()
    expect(page.get_by_text("You have none yet.")).to_be_visible()
    looks_right(page, f"none-{size}")
    page.get_by_label("What this device is called").fill("my phone")
    phone.press("Add a passkey on this device")
    phone.is_done("The passkey is added.")
    expect(page.get_by_text("my phone")).to_be_visible()
    looks_right(page, f"one-{size}")
    # It holds no second one.
    phone.press("Add a passkey on this device")
    phone.is_told("This device has a passkey for this relay already")
    phone.press("Log out")

    phone.goto("/asks/a3")
    expect(page.get_by_role("button", name="Log in with a passkey")).to_be_visible()
    looks_right(page, f"login-{size}")
    phone.press("Log in with a passkey")
    expect(page.get_by_role("button", name="Always")).to_be_visible()
    looks_right(page, f"ask-{size}")
    phone.press("Always")
    page.wait_for_url("**/inbox?*")

    assert [each["answer"] for each in relay.asks.replies()] == ["always"]
    (added,), (decided,) = relay.audit("passkey-added"), relay.audit("decision")
    assert (added["login"], added["device"], added["outcome"]) == ("ann", "my phone", "ok")
    assert (decided["login"], decided["decision"], decided["outcome"]) == ("ann", "always", "ok")
    proves(decided, added)
    assert [each["by"] for each in relay.audit("login") if "by" in each] == ["passkey"]
    assert [each for each in phone.problems if "Content Security Policy" in each] == []


def test_a_password_that_was_typed_can_be_looked_at(device: Callable[..., Device]) -> None:
    phone = device(**SIZES["phone"])
    phone.goto("/account")
    field = phone.page.get_by_label("Password", exact=True)
    field.fill("not seen yet")
    expect(field).to_have_attribute("type", "password")
    phone.press("Show the password")
    expect(field).to_have_attribute("type", "text")
    looks_right(phone.page, "shown")
    phone.press("Hide the password")
    expect(field).to_have_attribute("type", "password")
    expect(field).to_have_value("not seen yet")


def proves(decided: dict[str, Any], added: dict[str, Any]) -> None:
    """The lines of the log are enough to see that this key has signed this decision, and nothing else."""
    credential, data, client, signature = map(decoded, decided["proof"].split("."))
    assert credential == decoded(added["credential"])
    key = decoded_public_key_to_cryptography(decode_credential_public_key(decoded(added["public_key"])))
    content = data + hashlib.sha256(client).digest()
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, content)
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    decision = json.dumps(["decision", "a3", DIGEST, "always", "ann"], separators=(",", ":"))
    assert decoded(json.loads(client)["challenge"])[-32:] == hashlib.sha256(decision.encode()).digest()


def test_once_needs_no_passkey_where_always_does_and_who_has_none_is_told(
    relay: PasskeyRelay, device: Callable[..., Device]
) -> None:
    phone = device()
    phone.goto("/asks/a3")
    phone.type_password()
    phone.page.get_by_role("link", name="To your passkeys").wait_for()
    phone.press("Always")
    phone.is_told("add one at /account first")
    assert relay.asks.replies() == []
    phone.press("Allow once")
    phone.page.wait_for_url("**/inbox?*")
    assert [each["answer"] for each in relay.asks.replies()] == ["once"]
    phone.page.get_by_role("link", name="ann").click()
    expect(phone.page.get_by_role("heading")).to_have_text("Your passkeys")


def test_without_a_script_always_says_what_to_do(relay: PasskeyRelay, device: Callable[..., Device]) -> None:
    device().add()
    plain = device(java_script_enabled=False)
    plain.goto("/asks/a3")
    expect(plain.page.get_by_role("button", name="Log in with a passkey")).not_to_be_visible()
    plain.type_password()
    plain.press("Always")
    plain.is_told("let this page run its script")
    looks_right(plain.page, "no-script")
    plain.goto("/account")
    expect(plain.page.get_by_text("takes JavaScript")).to_be_visible()
    assert relay.asks.replies() == []


def test_a_signature_is_good_for_what_was_shown_and_nothing_else(
    relay: PasskeyRelay, device: Callable[..., Device]
) -> None:
    phone = device()
    phone.add()
    # Of another ask.
    relay.asks.change(handle="a4")
    of_another = TakenOver(phone, "a4").sign()
    relay.asks.change(handle="a3")
    page = TakenOver(phone)
    assert page.send(of_another) == REFUSED
    # Over another decision; over none at all.
    assert page.send(page.sign(decision="once")) == REFUSED
    assert page.send("") == REFUSED
    # Over another text than the one that it is about by now.
    answer = page.sign()
    relay.asks.change(digest="f" * 32)
    assert page.send(answer, digest="f" * 32) == REFUSED
    assert page.send(answer) == (409, "/asks/a3")
    relay.asks.change(digest=DIGEST)
    assert relay.asks.replies() == []
    # Once, and not again for the same ask, should it come back.
    assert page.send(answer) == TAKEN
    relay.asks.change(state="open")
    assert page.send(answer) == REFUSED
    assert len(relay.asks.replies()) == 1
    decided = [(each["outcome"], each["ask"], each["decision"]) for each in relay.audit("decision")]
    assert decided.count(("ok", "a3", "always")) == 1
    assert set(decided) == {("ok", "a3", "always"), ("refused", "a3", "always")}


def test_a_signature_counts_from_its_own_page_by_its_own_person_who_was_verified(
    relay: PasskeyRelay, device: Callable[..., Device]
) -> None:
    phone, of_bob = device(), device()
    phone.add()
    of_bob.add("bob")
    # On a page of another port, which is the same site for the browser.
    options = TakenOver(phone).options()
    phone.page.route(
        "http://localhost:1/", lambda route: route.fulfill(body="<h1>Elsewhere</h1>", content_type="text/html")
    )
    phone.page.goto("http://localhost:1/")
    from_elsewhere = signed(phone.page, options)
    assert TakenOver(phone).send(from_elsewhere) == REFUSED
    # Of somebody who was not asked for finger, face or PIN.
    page = TakenOver(phone)
    lax = page.options().replace('"userVerification": "required"', '"userVerification": "discouraged"')
    assert "discouraged" in lax
    phone.verifies(verified=False)
    assert page.send(signed(phone.page, lax)) == REFUSED
    phone.verifies(verified=True)
    # In the session of another person, and by their passkey in ours.
    mine = TakenOver(phone).sign()
    theirs = TakenOver(of_bob)
    assert theirs.send(mine) == REFUSED
    assert TakenOver(phone).send(theirs.sign()) == REFUSED
    assert relay.asks.replies() == []
    assert TakenOver(phone).send(mine) == TAKEN


def test_a_copy_of_a_passkey_is_found_by_its_count(relay: PasskeyRelay, device: Callable[..., Device]) -> None:
    phone = device()
    phone.add()
    copied = phone.key()
    page = TakenOver(phone)
    assert page.send(page.sign()) == TAKEN
    relay.asks.put()
    phone.put(copied)
    phone.press_always()
    phone.is_told("it may have been copied")
    assert relay.asks.replies() == []
    phone.press("Log out")
    phone.put(copied)
    phone.goto("/inbox")
    phone.press("Log in with a passkey")
    phone.is_told("it may have been copied")
    assert "counter went back" in relay.audit("login")[-1]["why"]
    assert "may have been copied" in relay.gateway.log


def test_a_passkey_of_a_disabled_person_and_a_removed_one_open_nothing(
    relay: PasskeyRelay, device: Callable[..., Device]
) -> None:
    phone = device()
    phone.add()
    phone.press("Log out")
    phone.goto("/account")
    relay.users.set_disabled("ann", disabled=True)
    try:
        phone.press("Log in with a passkey")
        phone.is_told("of no use here")
    finally:
        relay.users.set_disabled("ann", disabled=False)
    phone.press("Log in with a passkey")
    phone.press("Remove")
    phone.is_done("The passkey is removed.")
    assert [each["device"] for each in relay.audit("passkey-removed")] == ["my phone"]
    phone.press("Log out")
    phone.goto("/account")
    phone.press("Log in with a passkey")
    phone.is_told("of no use here")


def test_a_form_that_is_not_ours_changes_nothing(relay: PasskeyRelay, device: Callable[..., Device]) -> None:
    phone = device()
    phone.add()
    shown = phone.page.locator("input[name=id]").input_value()
    for path in ("/account/options", "/account/add", "/account/remove", "/account/again", "/asks/a3/passkey"):
        for token in ("", "forged"):
            fields: dict[str, str | float | bool] = {
                "token": token,
                "id": shown,
                "name": "mine",
                "passkey": "{}",
                "decision": "always",
            }
            assert phone.page.request.post(relay.url + path, form=fields).status == 403
    for path in ("/login/passkey", "/login/passkey/options"):
        assert phone.page.request.post(relay.url + path, form={"passkey": "{}"}).status in {400, 403}
    phone.page.reload()
    assert phone.page.locator("input[name=id]").input_value() == shown


def test_whoever_finds_a_session_adds_no_passkey_with_it(relay: PasskeyRelay, device: Callable[..., Device]) -> None:
    phone = device()
    phone.goto("/account")
    phone.type_password()
    expect(phone.page.get_by_text("You have none yet.")).to_be_visible()
    relay.make_older(FRESH_SECONDS)
    phone.press("Add a passkey on this device")
    phone.is_told("log in once more")
    phone.page.reload()
    looks_right(phone.page, "stale")
    phone.press("Log in again")
    phone.type_password()
    phone.press("Add a passkey on this device")
    phone.is_done("The passkey is added.")
