"""Passkeys in a real Chromium, with its virtual authenticator: added, a login by it, and a decision that it signs."""

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
from support.browser import CONTRASTS, DESKTOP, chromium, fits, screenshot
from support.fake_authenticator import decoded
from support.fake_pages import DIGEST
from support.passkey_world import PASSWORD, PasskeyWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, CDPSession, Page

PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PasskeyWorld]:
    with ExitStack() as stack:
        yield PasskeyWorld(tmp_path_factory.mktemp("world"), stack, passkey_for=["always"])


class Device:
    """A browser of one person with an authenticator in it."""

    def __init__(self, page: Page, world: PasskeyWorld, *, verified: bool = True) -> None:
        self.page = page
        self._world = world
        self.problems: list[str] = []
        page.on("console", lambda told: self.problems.append(told.text) if told.type == "error" else None)
        self._tools: CDPSession = page.context.new_cdp_session(page)
        self._tools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": verified,
            "automaticPresenceSimulation": True,
        }
        self._id = self._tools.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]

    def log_in(self, path: str, login: str = "ann") -> None:
        self.page.goto(self._world.relay.url + path)
        self.page.get_by_label("Name").fill(login)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in", exact=True).click()

    def add(self, login: str = "ann", name: str = "my phone") -> None:
        """Log in, and add a passkey."""
        self.log_in("/account", login)
        self.page.get_by_label("What this device is called").fill(name)
        self.page.get_by_role("button", name="Add a passkey").click()
        expect(self.page.get_by_role("status")).to_have_text("The passkey is added.")

    def keys(self) -> list[dict[str, Any]]:
        held: list[dict[str, Any]] = self._tools.send("WebAuthn.getCredentials", {"authenticatorId": self._id})[
            "credentials"
        ]
        return held

    def put(self, key: dict[str, Any]) -> None:
        """Replace a key by what it was, as a copy of it has it."""
        which = {"authenticatorId": self._id, "credentialId": key["credentialId"]}
        self._tools.send("WebAuthn.removeCredential", which)
        self._tools.send("WebAuthn.addCredential", {"authenticatorId": self._id, "credential": key})

    def verifies(self, *, verified: bool) -> None:
        self._tools.send("WebAuthn.setUserVerified", {"authenticatorId": self._id, "isUserVerified": verified})

    def press_always(self) -> None:
        self.page.goto(f"{self._world.relay.url}/asks/a3")
        self.page.get_by_role("button", name="Always").click()

    def is_told(self, words: str) -> None:
        expect(self.page.get_by_role("alert")).to_contain_text(words)


@pytest.fixture
def device(browser: Browser, world: PasskeyWorld) -> Iterator[Callable[..., Device]]:
    with ExitStack() as stack:

        def make(**options: Any) -> Device:
            options.setdefault("viewport", DESKTOP)
            context = stack.enter_context(browser.new_context(ignore_https_errors=True, locale="en", **options))
            return Device(context.new_page(), world)

        yield make


def looks_right(page: Page, name: str) -> None:
    fits(page)
    assert page.evaluate(CONTRASTS) == []
    screenshot(page, f"passkeys-{name}")


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_from_the_first_passkey_to_a_decision_that_the_log_proves(
    world: PasskeyWorld, device: Callable[..., Device], size: str, scheme: str
) -> None:
    phone = device(**(PHONE if size == "phone" else {}), color_scheme=scheme)
    page = phone.page
    phone.log_in("/account")
    expect(page.get_by_text("You have none yet.")).to_be_visible()
    looks_right(page, f"none-{size}-{scheme}")
    page.get_by_label("What this device is called").fill("my phone")
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.get_by_role("status")).to_have_text("The passkey is added.")
    expect(page.get_by_text("my phone")).to_be_visible()
    looks_right(page, f"one-{size}-{scheme}")
    # It holds no second one.
    page.get_by_role("button", name="Add a passkey").click()
    phone.is_told("This device has a passkey for this relay already")
    page.get_by_role("button", name="Log out").click()

    page.goto(f"{world.relay.url}/asks/a3")
    expect(page.get_by_label("Name")).to_be_visible()
    looks_right(page, f"login-{size}-{scheme}")
    page.get_by_role("button", name="Log in with a passkey").click()
    expect(page.get_by_role("button", name="Always")).to_be_visible()
    looks_right(page, f"ask-{size}-{scheme}")
    page.get_by_role("button", name="Always").click()
    page.wait_for_url("**/inbox?*")

    assert world.child.replies == [{"instance": "laptop", "ask": "a3", "answer": "always"}]
    (added,), (decided,) = world.audit("passkey-added"), world.audit("decision")
    assert (added["login"], added["device"], added["outcome"]) == ("ann", "my phone", "ok")
    assert (decided["login"], decided["decision"], decided["outcome"]) == ("ann", "always", "ok")
    proves(decided, added["public_key"])
    assert [each["by"] for each in world.audit("login") if "by" in each] == ["passkey"]
    assert [each for each in phone.problems if "Content Security Policy" in each] == []


def proves(decided: dict[str, Any], public_key: str) -> None:
    """The line of the audit log is a signature over exactly this decision."""
    credential, data, client, signature = map(decoded, decided["proof"].split("."))
    assert credential
    key = decoded_public_key_to_cryptography(decode_credential_public_key(decoded(public_key)))
    signed = data + hashlib.sha256(client).digest()
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, signed)
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    decision = json.dumps(["decision", "a3", DIGEST, "always", "ann"], separators=(",", ":"))
    assert decoded(json.loads(client)["challenge"])[-32:] == hashlib.sha256(decision.encode()).digest()


def test_once_and_reject_need_no_passkey_where_always_does(
    world: PasskeyWorld, device: Callable[..., Device]
) -> None:
    phone = device()
    phone.log_in("/asks/a3")
    expect(phone.page.get_by_text("You have no passkey here")).to_be_visible()
    phone.page.get_by_role("button", name="Allow once").click()
    phone.page.wait_for_url("**/inbox?*")
    assert [each["answer"] for each in world.child.replies] == ["once"]
    phone.press_always()
    phone.is_told("add one at /account first")
    assert len(world.child.replies) == 1


def test_without_a_script_always_says_what_to_do(world: PasskeyWorld, device: Callable[..., Device]) -> None:
    phone = device()
    phone.add()
    cookies = phone.page.context.cookies()
    plain = device(java_script_enabled=False)
    plain.page.context.add_cookies(cookies)  # type: ignore[arg-type] # as they came
    plain.press_always()
    plain.is_told("let this page run its script")
    looks_right(plain.page, "no-script")
    plain.page.goto(f"{world.relay.url}/account")
    expect(plain.page.get_by_text("takes JavaScript")).to_be_visible()
    assert world.child.replies == []


# What is signed for one thing, and sent for another

TALK = """
async ([path, fields]) => {
  const token = document.querySelector("form.ask input[name=token]").value;
  const answer = await fetch(path, { method: "POST", body: new URLSearchParams({ token, ...fields }) });
  return [answer.status, new URL(answer.url).pathname, await answer.text()];
}
"""
"""Sends a form as the page that is shown could, if it were taken over."""
SIGN = """
async (options) => {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(options));
  return JSON.stringify((await navigator.credentials.get({ publicKey })).toJSON());
}
"""


class Taken:
    """The page of an ask, taken over by somebody who makes the person sign one thing and sends another."""

    def __init__(self, phone: Device, world: PasskeyWorld, ask: str = "a3") -> None:
        phone.page.goto(f"{world.relay.url}/asks/{ask}")
        self._page, self._ask = phone.page, ask

    def options(self, **changed: str) -> str:
        fields = {"decision": "always", "digest": DIGEST, **changed}
        status, _, text = self._page.evaluate(TALK, [f"/asks/{self._ask}/passkey", fields])
        assert status == 200, text
        return str(text)

    def sign(self, **changed: str) -> str:
        return str(self._page.evaluate(SIGN, self.options(**changed)))

    def send(self, passkey: str, **changed: str) -> tuple[int, str]:
        """Return the status and the page of what came of it."""
        fields = {"decision": "always", "digest": DIGEST, "passkey": passkey, **changed}
        status, path, _ = self._page.evaluate(TALK, [f"/asks/{self._ask}", fields])
        return status, path


REFUSED = (403, "/asks/a3")


def test_a_signature_is_good_for_what_was_shown_and_nothing_else(
    world: PasskeyWorld, device: Callable[..., Device]
) -> None:
    phone = device()
    phone.add()
    # Of another ask.
    of_another = Taken(phone, world, "a4").sign()
    page = Taken(phone, world)
    assert page.send(of_another) == REFUSED
    # Over another decision; over none at all.
    assert page.send(page.sign(decision="once")) == REFUSED
    assert page.send("") == REFUSED
    # Over another text than the one that it is about by now.
    signed = page.sign()
    world.child.ask = world.child.ask.model_copy(update={"digest": "f" * 32})
    assert page.send(signed, digest="f" * 32) == REFUSED
    assert page.send(signed) == (409, "/asks/a3")
    world.child.ask = world.child.ask.model_copy(update={"digest": DIGEST})
    assert world.child.replies == []
    # Once, and not again.
    assert page.send(signed) == (200, "/inbox")
    assert page.send(signed) == REFUSED
    assert len(world.child.replies) == 1
    assert {each["outcome"] for each in world.audit("passkey")} == {"refused"}


def test_a_signature_counts_from_its_own_page_by_its_own_person_who_was_verified(
    world: PasskeyWorld, device: Callable[..., Device]
) -> None:
    phone, of_bob = device(), device()
    phone.add()
    of_bob.add("bob")
    # On a page of another port: for the browser it is the same site.
    options = Taken(phone, world).options()
    phone.page.goto(world.other.url)
    from_elsewhere = phone.page.evaluate(SIGN, options)
    assert Taken(phone, world).send(from_elsewhere) == REFUSED
    # Of somebody who was not asked for finger, face or PIN.
    phone.verifies(verified=False)
    page = Taken(phone, world)
    lax = page.options().replace('"userVerification": "required"', '"userVerification": "discouraged"')
    assert "discouraged" in lax
    assert page.send(phone.page.evaluate(SIGN, lax)) == REFUSED
    phone.verifies(verified=True)
    # In the session of another person, and by their passkey in ours.
    mine = Taken(phone, world).sign()
    theirs = Taken(of_bob, world)
    assert theirs.send(mine) == REFUSED
    assert Taken(phone, world).send(theirs.sign()) == REFUSED
    assert world.child.replies == []
    assert Taken(phone, world).send(mine) == (200, "/inbox")


def test_a_copy_of_a_passkey_is_found_by_its_count(world: PasskeyWorld, device: Callable[..., Device]) -> None:
    phone = device()
    phone.add()
    (copied,) = phone.keys()
    page = Taken(phone, world)
    assert page.send(page.sign(decision="always")) == (200, "/inbox")
    phone.put(copied)
    phone.press_always()
    phone.is_told("it may have been copied")
    phone.page.get_by_role("button", name="Log out").click()
    phone.put(copied)
    phone.page.goto(f"{world.relay.url}/inbox")
    phone.page.get_by_role("button", name="Log in with a passkey").click()
    phone.is_told("it may have been copied")
    assert len(world.child.replies) == 1


def test_a_passkey_of_a_disabled_person_and_a_removed_one_open_nothing(
    world: PasskeyWorld, device: Callable[..., Device]
) -> None:
    phone = device()
    phone.add()
    phone.page.get_by_role("button", name="Log out").click()
    for undo in (False, True):
        world.users.set_disabled("ann", disabled=not undo)
        phone.page.goto(f"{world.relay.url}/account")
        phone.page.get_by_role("button", name="Log in with a passkey").click()
        if not undo:
            phone.is_told("of no use here")
    phone.page.get_by_role("button", name="Remove").click()
    expect(phone.page.get_by_role("status")).to_have_text("The passkey is removed.")
    assert [each["device"] for each in world.audit("passkey-removed")] == ["my phone"]
    phone.page.get_by_role("button", name="Log out").click()
    phone.page.goto(f"{world.relay.url}/account")
    phone.page.get_by_role("button", name="Log in with a passkey").click()
    phone.is_told("of no use here")


def test_whoever_finds_a_session_adds_no_passkey_with_it(world: PasskeyWorld, device: Callable[..., Device]) -> None:
    phone = device()
    phone.log_in("/account")
    button = phone.page.get_by_role("button", name="Add a passkey")
    expect(button).to_be_visible()
    world.clock.advance(FRESH_SECONDS)
    button.click()
    phone.is_told("log in once more")
    phone.page.reload()
    expect(button).not_to_be_visible()
    looks_right(phone.page, "stale")
    phone.page.get_by_role("button", name="Log in again").click()
    phone.page.get_by_label("Name").fill("ann")
    phone.page.get_by_label("Password").fill(PASSWORD)
    phone.page.get_by_role("button", name="Log in", exact=True).click()
    button.click()
    expect(phone.page.get_by_role("status")).to_have_text("The passkey is added.")
