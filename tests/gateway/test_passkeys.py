"""Passkeys: added, a login by themselves, and a signature over one decision, by devices that may be bent."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import decode_credential_public_key, decoded_public_key_to_cryptography

from opencode_gateway.errors import CommandRefused
from opencode_gateway.people.users import Users
from opencode_gateway.sign_in import passkey_rows
from opencode_gateway.sign_in.challenges import SECONDS, Challenges
from opencode_gateway.sign_in.passkeys import Ask, PasskeyRefused, Passkeys
from opencode_gateway.store import FILE_NAME, Store
from support.gateway.authorization import CHEAP_HASH, PUBLIC_URL, Clock
from support.gateway.fake_authenticator import PRESENT, FakeAuthenticator, decoded, encoded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIGEST = "0123456789abcdef" * 2
ALWAYS = Ask("a3", DIGEST, "always")


class Site:
    """The gateway's passkeys, and its people `ann` and `bob`."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.store = Store(directory / FILE_NAME)
        self.users = Users(directory / "users.json")
        for name in ("ann", "bob"):
            self.users.add(name, CHEAP_HASH, ["observe", "approve"])
        self.passkeys = Passkeys(
            self.store, self.users, PUBLIC_URL, clock=self.clock, challenges=Challenges(self.clock)
        )

    async def device(self, login: str = "ann", **bent: Any) -> FakeAuthenticator:
        """Return a device on which this person added a passkey."""
        device = FakeAuthenticator(PUBLIC_URL, **bent)
        await self.add(device, login)
        return device

    async def add(self, device: FakeAuthenticator, login: str = "ann") -> passkey_rows.Passkey:
        answer = device.make(self.passkeys.adding(login, "session"))
        return await self.passkeys.add(login, "session", f"{login}'s phone", answer)

    async def log_in(self, device: FakeAuthenticator, browser: str = "browser") -> str:
        answer = device.sign(self.passkeys.logging_in("browser"))
        return (await self.passkeys.log_in(browser, answer)).login

    async def decide(self, device: FakeAuthenticator, login: str = "ann", session: str = "session") -> str:
        answer = device.sign(self.passkeys.deciding("ann", "session", ALWAYS))
        return await self.passkeys.decided(login, session, ALWAYS, answer)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.store.close()


# Adding


async def test_a_passkey_that_was_added_is_listed_and_removed(site: Site) -> None:
    phone = await site.device()

    (listed,) = site.passkeys.of("ann")
    assert (listed.login, listed.name, listed.site) == ("ann", "ann's phone", "relay.example.org")
    assert (listed.created_at, listed.used_at) == (site.clock(), None)
    assert listed.credential == encoded(phone.credential)
    assert site.passkeys.of("bob") == []

    assert await site.passkeys.remove("bob", listed.id) is None
    assert await site.passkeys.remove("ann", listed.id) == "ann's phone"
    assert site.passkeys.of("ann") == []
    with pytest.raises(PasskeyRefused, match="it was removed"):
        await site.log_in(phone)


async def test_a_device_is_asked_for_a_key_that_it_keeps_and_guards_and_for_no_second_one(site: Site) -> None:
    phone = await site.device()

    asked = json.loads(site.passkeys.adding("ann", "session"))

    assert asked["rp"]["id"] == "relay.example.org"
    assert asked["authenticatorSelection"]["residentKey"] == "required"
    assert asked["authenticatorSelection"]["userVerification"] == "required"
    assert asked["attestation"] == "none"
    excluded = [{"id": encoded(phone.credential), "type": "public-key", "transports": ["internal"]}]
    assert asked["excludeCredentials"] == excluded
    # All of a person's passkeys are one account to their devices, which is not called by their name.
    assert decoded(asked["user"]["id"]) == phone.user_handle
    assert json.loads(site.passkeys.adding("bob", "session"))["user"]["id"] != encoded(phone.user_handle)


async def test_a_device_that_holds_one_already_adds_no_other_in_anybodys_name(site: Site) -> None:
    phone = await site.device()
    for login in ("ann", "bob"):
        with pytest.raises(CommandRefused, match="there already"):
            await site.add(phone, login)


async def test_there_are_at_most_ten_of_a_person(site: Site) -> None:
    for _ in range(passkey_rows.MAX_PASSKEYS - 1):
        await site.device()
    one, other = [FakeAuthenticator(PUBLIC_URL).make(site.passkeys.adding("ann", "session")) for _ in range(2)]
    await site.passkeys.add("ann", "session", "phone", one)
    with pytest.raises(CommandRefused, match="remove one first"):
        site.passkeys.adding("ann", "session")
    # Nor where another tab was faster.
    with pytest.raises(CommandRefused, match="remove one first"):
        await site.passkeys.add("ann", "session", "phone", other)
    await site.device("bob")


BENT: dict[str, dict[str, Any]] = {
    "of a page elsewhere": {"origin": "https://relay.example.org.evil.example"},
    "of the page by another port": {"origin": f"{PUBLIC_URL}:8443"},
    "of a page within another": {"client": {"crossOrigin": True}},
    "for another site": {"site": "evil.example"},
    "that did not make sure of its person": {"flags": PRESENT},
    "without a person": {"flags": 0},
    "for another ceremony": {"client": {"type": "payment.get"}},
    "that is too long": {"client": {"more": "x" * 1024}},
    "over a challenge of its own": {"client": {"challenge": encoded(bytes(88))}},
    "over no challenge": {"client": {"challenge": 7}},
}


def bend(device: FakeAuthenticator, how: str) -> None:
    for name, value in BENT[how].items():
        setattr(device, name, value)


@pytest.mark.parametrize("how", BENT)
async def test_no_passkey_is_added_by_an_answer(site: Site, how: str) -> None:
    device = FakeAuthenticator(PUBLIC_URL)
    bend(device, how)
    with pytest.raises(PasskeyRefused):
        await site.add(device)
    assert site.passkeys.of("ann") == []


async def test_what_was_asked_of_one_session_or_person_adds_nothing_for_another(site: Site) -> None:
    device = FakeAuthenticator(PUBLIC_URL)
    answer = device.make(site.passkeys.adding("ann", "session"))
    for login, session in (("ann", "another"), ("bob", "session")):
        with pytest.raises(PasskeyRefused, match="Press the button again"):
            await site.passkeys.add(login, session, "phone", answer)
    login = device.sign(site.passkeys.logging_in("session"))
    with pytest.raises(PasskeyRefused):
        await site.passkeys.add("ann", "session", "phone", login)
    await site.passkeys.add("ann", "session", "phone", answer)


JUNK = [
    "",
    "null",
    "[]",
    "{}",
    "[" * 15_000,
    '{"rawId":"é"}',
    "x" * 100_000,
    '{"rawId":"AA","type":"public-key"}',
    "\ud800",
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
async def test_junk_is_refused_in_words(site: Site, junk: str) -> None:
    for taken in (
        site.passkeys.add("ann", "session", "phone", junk),
        site.passkeys.log_in("browser", junk),
        site.passkeys.decided("ann", "session", ALWAYS, junk),
    ):
        with pytest.raises(PasskeyRefused, match="Press the button again"):
            await taken


async def test_a_name_of_a_device_is_one_line_that_hides_nothing(site: Site) -> None:
    device = FakeAuthenticator(PUBLIC_URL)
    answer = device.make(site.passkeys.adding("ann", "session"))
    added = await site.passkeys.add("ann", "session", " my\n\u202ephone " + "x" * 200, answer)
    assert added.name.startswith("my \\u202ephone xxx")
    assert len(added.name) == passkey_rows.MAX_NAME


@pytest.mark.parametrize(("url", "possible"), [(PUBLIC_URL, True), ("http://localhost:8790", True)])
def test_a_name_can_have_passkeys(site: Site, url: str, *, possible: bool) -> None:
    assert Passkeys(site.store, site.users, url).possible is possible


@pytest.mark.parametrize("url", ["http://127.0.0.1:8790", "http://[::1]:8790"])
def test_an_address_of_numbers_has_none(site: Site, url: str) -> None:
    assert not Passkeys(site.store, site.users, url).possible


# Logging in


async def test_a_passkey_logs_its_person_in(site: Site) -> None:
    of_ann, of_bob = await site.device("ann"), await site.device("bob")
    site.clock.advance(5)

    assert await site.log_in(of_ann) == "ann"
    assert await site.log_in(of_bob) == "bob"

    assert site.passkeys.of("ann")[0].used_at == site.clock()
    asked = json.loads(site.passkeys.logging_in("browser"))
    assert (asked["rpId"], asked["userVerification"], asked["allowCredentials"]) == (
        "relay.example.org",
        "required",
        [],
    )


@pytest.mark.parametrize("how", BENT)
async def test_nobody_is_logged_in_by_an_answer(site: Site, how: str) -> None:
    device = await site.device()
    bend(device, how)
    with pytest.raises(PasskeyRefused):
        await site.log_in(device)


async def test_an_answer_is_good_once_in_its_own_browser_and_for_five_minutes(site: Site) -> None:
    phone = await site.device()
    answer = phone.sign(site.passkeys.logging_in("browser"))
    with pytest.raises(PasskeyRefused):
        await site.passkeys.log_in("another browser", answer)
    await site.passkeys.log_in("browser", answer)
    with pytest.raises(PasskeyRefused, match="was sent before"):
        await site.passkeys.log_in("browser", answer)
    late = phone.sign(site.passkeys.logging_in("browser"))
    site.clock.advance(SECONDS + 1)
    with pytest.raises(PasskeyRefused, match="longer than five minutes"):
        await site.passkeys.log_in("browser", late)


async def test_a_passkey_of_a_disabled_or_removed_person_is_nothing(site: Site) -> None:
    phone = await site.device()
    site.users.set_disabled("ann", disabled=True)
    for taken in (site.log_in, site.decide):
        with pytest.raises(PasskeyRefused, match="of no use here"):
            await taken(phone)
    site.users.set_disabled("ann", disabled=False)
    assert await site.log_in(phone) == "ann"
    site.users.remove("ann")
    with pytest.raises(PasskeyRefused, match="of no use here"):
        await site.log_in(phone)


async def test_a_device_that_was_never_added_and_one_that_says_it_is_anothers_are_nothing(site: Site) -> None:
    stranger, of_ann, of_bob = FakeAuthenticator(PUBLIC_URL), await site.device(), await site.device("bob")
    with pytest.raises(PasskeyRefused, match="of no use here"):
        await site.log_in(stranger)
    # By ann's id, signed by bob's key.
    of_bob.credential, of_bob.user_handle = of_ann.credential, of_ann.user_handle
    with pytest.raises(PasskeyRefused, match="was not taken"):
        await site.log_in(of_bob)
    of_ann.user_handle = b"of nobody"
    with pytest.raises(PasskeyRefused, match="of no use here"):
        await site.log_in(of_ann)


async def test_a_count_that_goes_back_is_refused_told_and_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    phone = await site.device(count=7)
    assert await site.log_in(phone) == "ann"
    phone.count = 7
    with pytest.raises(PasskeyRefused, match="remove it and add it anew") as refused:
        await site.log_in(phone)
    assert "counter went back" in refused.value.why
    (told,) = [each.getMessage() for each in caplog.records]
    assert "a passkey of ann" in told
    # One that stops counting was made to.
    phone.count, phone.counts = 0, False
    with pytest.raises(PasskeyRefused, match="may have been copied"):
        await site.decide(phone)
    phone.count, phone.counts = 8, True
    assert await site.log_in(phone) == "ann"


async def test_a_passkey_that_devices_share_counts_nothing_and_is_good(site: Site) -> None:
    shared = await site.device(counts=False)
    for _ in range(2):
        assert await site.log_in(shared) == "ann"
    shared.counts = True
    assert await site.log_in(shared) == "ann"


async def test_a_passkey_of_another_address_of_the_gateway_is_of_no_use(site: Site) -> None:
    phone = await site.device()
    moved = Passkeys(site.store, site.users, "https://new.example.org")
    phone.origin = "https://new.example.org"
    assert moved.of("ann") == []
    with pytest.raises(CommandRefused, match="add one at /account first"):
        moved.deciding("ann", "session", ALWAYS)
    with pytest.raises(PasskeyRefused, match="of no use here"):
        await moved.log_in("browser", phone.sign(moved.logging_in("browser")))


# Deciding


async def test_a_proof_can_be_checked_by_whoever_has_the_public_key(site: Site) -> None:
    phone = await site.device()

    proof = await site.decide(phone)

    credential, data, client, signature = map(decoded, proof.split("."))
    (passkey,) = site.passkeys.of("ann")
    assert credential == decoded(passkey.credential)
    key = decoded_public_key_to_cryptography(decode_credential_public_key(decoded(passkey.public_key)))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signature, data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
    said = json.loads(client)
    decision = json.dumps(["decision", "a3", DIGEST, "always", "ann"], separators=(",", ":"))
    assert decoded(said["challenge"])[-32:] == hashlib.sha256(decision.encode()).digest()
    assert said["origin"] == PUBLIC_URL


async def test_a_decision_is_asked_of_the_persons_own_devices(site: Site) -> None:
    of_ann, of_bob = await site.device("ann"), await site.device("bob")
    asked = json.loads(site.passkeys.deciding("ann", "session", ALWAYS))
    assert [each["id"] for each in asked["allowCredentials"]] == [encoded(of_ann.credential)]
    answer = of_bob.sign(json.dumps(asked))
    with pytest.raises(PasskeyRefused, match="not yours"):
        await site.passkeys.decided("ann", "session", ALWAYS, answer)


OTHERS = {
    "another ask": Ask("a4", DIGEST, "always"),
    "another text": Ask("a3", "f" * 32, "always"),
    "another decision": Ask("a3", DIGEST, "once"),
    "a list of it": Ask("a3", DIGEST, ["always"]),
}


@pytest.mark.parametrize("other", OTHERS)
async def test_what_was_signed_for_one_decision_decides_not(site: Site, other: str) -> None:
    phone = await site.device()
    answer = phone.sign(site.passkeys.deciding("ann", "session", ALWAYS))
    with pytest.raises(PasskeyRefused, match="about something else"):
        await site.passkeys.decided("ann", "session", OTHERS[other], answer)
    assert await site.passkeys.decided("ann", "session", ALWAYS, answer)
    with pytest.raises(PasskeyRefused, match="sent before"):
        await site.passkeys.decided("ann", "session", ALWAYS, answer)


async def test_what_was_signed_decides_in_its_own_session_alone(site: Site) -> None:
    phone = await site.device()
    with pytest.raises(PasskeyRefused):
        await site.decide(phone, session="another")
    with pytest.raises(PasskeyRefused):
        await site.decide(phone, login="bob")
    # A login is no decision.
    with pytest.raises(PasskeyRefused):
        await site.passkeys.decided("ann", "session", ALWAYS, phone.sign(site.passkeys.logging_in("session")))


@pytest.mark.parametrize("how", BENT)
async def test_nothing_is_decided_by_an_answer(site: Site, how: str) -> None:
    device = await site.device()
    bend(device, how)
    with pytest.raises(PasskeyRefused):
        await site.decide(device)


async def test_a_passkey_that_was_removed_meanwhile_decides_nothing(site: Site) -> None:
    phone = await site.device()
    answer = phone.sign(site.passkeys.deciding("ann", "session", ALWAYS))
    (passkey,) = site.passkeys.of("ann")
    await site.passkeys.remove("ann", passkey.id)
    with pytest.raises(PasskeyRefused, match="it was removed"):
        await site.passkeys.decided("ann", "session", ALWAYS, answer)


async def test_an_answer_makes_void_what_its_person_was_asked_before(site: Site) -> None:
    phone, laptop, of_bob = await site.device(), await site.device(), await site.device("bob")
    older = [device.sign(site.passkeys.logging_in("browser")) for device in (laptop, of_bob)]
    assert await site.log_in(phone) == "ann"
    with pytest.raises(PasskeyRefused, match="Press the button again"):
        await site.passkeys.log_in("browser", older[0])
    assert (await site.passkeys.log_in("browser", older[1])).login == "bob"
