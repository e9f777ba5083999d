"""A real gateway at a name, as passkeys need one, and Chromium with its virtual authenticator for its people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from argon2.profiles import CHEAPEST
from playwright.sync_api import expect

from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.people.users import Users
from opencode_gateway.sign_in import passkey_rows
from opencode_gateway.sign_in.passwords import Passwords
from opencode_gateway.store import FILE_NAME, Store
from support.gateway.product_gateway import ProductGateway
from support.pages.fake_asks import DIGEST, ENTRY, Asks

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import CDPSession, Page

PASSWORD = "correct horse battery"


class PasskeyRelay:
    """A gateway with one ask behind it and the people `ann` and `bob`; a passkey is wanted for `always`."""

    def __init__(self, directory: Path) -> None:
        self.asks = Asks(directory)
        servers = {"opencode": {**ENTRY, "env": {"FAKE_ASKS": str(directory)}}}
        self.gateway = ProductGateway(directory, servers, passkey_for=["always"])
        # Browsers make no passkeys for numbers.
        self.url = f"http://localhost:{self.gateway.port}"
        settings = json.loads(self.gateway.config.read_text())
        self.gateway.config.write_text(json.dumps(settings | {"public_url": self.url}))
        self.users = Users(self.gateway.data_dir / "users.json")
        for name in ("ann", "bob"):
            self.users.add(name, Passwords(CHEAPEST).hash(PASSWORD), CAPABILITIES)
        self.store = Store(self.gateway.data_dir / FILE_NAME)
        self._seen = 0

    def renew(self) -> None:
        """Forget passkeys and what is in the log, and let the ask wait anew."""
        self.asks.put()
        with self.store.transaction() as db:
            for name in ("ann", "bob"):
                passkey_rows.remove_all(db, name)
        self._seen = len(self.gateway.audit())

    def audit(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of this test's about such an event."""
        return [line for line in self.gateway.audit()[self._seen :] if line["event"] == event]

    def make_older(self, seconds: float) -> None:
        """Let every login have been so much earlier."""
        with self.store.transaction() as db:
            db.execute("UPDATE page_sessions SET created_at = created_at - ?", (seconds,))


class Device:
    """A browser of one person, with an authenticator in it."""

    def __init__(self, page: Page, relay: PasskeyRelay) -> None:
        self.page = page
        self.relay = relay
        self.problems: list[str] = []
        page.on("console", lambda told: self.problems.append(told.text) if told.type == "error" else None)
        self._tools: CDPSession = page.context.new_cdp_session(page)
        self._tools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        self._id = self._tools.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]

    def goto(self, path: str) -> None:
        self.page.goto(self.relay.url + path)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def type_password(self, login: str = "ann") -> None:
        self.page.get_by_label("Name").fill(login)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.press("Log in")

    def add(self, login: str = "ann") -> None:
        """Log in with the password, and add a passkey."""
        self.goto("/account")
        self.type_password(login)
        self.page.get_by_label("What this device is called").fill("my phone")
        self.press("Add a passkey on this device")
        self.is_done("The passkey is added.")

    def press_always(self) -> None:
        self.goto("/asks/a3")
        self.press("Always")

    def is_told(self, words: str) -> None:
        expect(self.page.get_by_role("alert")).to_contain_text(words)

    def is_done(self, words: str) -> None:
        expect(self.page.get_by_role("status")).to_have_text(words)

    def key(self) -> dict[str, Any]:
        """Return its key as it is now, for a copy of it."""
        held: dict[str, Any] = self._tools.send("WebAuthn.getCredentials", {"authenticatorId": self._id})
        [key] = held["credentials"]
        return dict(key)

    def put(self, key: dict[str, Any]) -> None:
        """Have its key be what it was before, as a copy of it is."""
        which = {"authenticatorId": self._id, "credentialId": key["credentialId"]}
        self._tools.send("WebAuthn.removeCredential", which)
        self._tools.send("WebAuthn.addCredential", {"authenticatorId": self._id, "credential": key})

    def verifies(self, *, verified: bool) -> None:
        """Ask for finger, face or PIN from now on, or not."""
        self._tools.send("WebAuthn.setUserVerified", {"authenticatorId": self._id, "isUserVerified": verified})


_TALK = """
async ([path, fields]) => {
  const token = document.querySelector("form.ask input[name=token]").value;
  const answer = await fetch(path, { method: "POST", body: new URLSearchParams({ token, ...fields }) });
  return [answer.status, new URL(answer.url).pathname, await answer.text()];
}
"""
_SIGN = """
async (options) => {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(options));
  return JSON.stringify((await navigator.credentials.get({ publicKey })).toJSON());
}
"""


def signed(page: Page, options: str) -> str:
    """Have the person's device sign what it is given, on whatever page they are."""
    return str(page.evaluate(_SIGN, options))


class TakenOver:
    """The page of an ask in the hands of somebody who has the person sign one thing and sends another."""

    def __init__(self, device: Device, ask: str = "a3") -> None:
        device.goto(f"/asks/{ask}")
        self._page, self._path = device.page, f"/asks/{ask}"

    def options(self, **changed: str) -> str:
        fields = {"decision": "always", "digest": DIGEST, **changed}
        status, _, text = self._page.evaluate(_TALK, [f"{self._path}/passkey", fields])
        assert status == 200, text
        return str(text)

    def sign(self, **changed: str) -> str:
        return signed(self._page, self.options(**changed))

    def send(self, passkey: str, **changed: str) -> tuple[int, str]:
        """Return the status, and the page to which it led."""
        fields = {"decision": "always", "digest": DIGEST, "passkey": passkey, **changed}
        status, path, _ = self._page.evaluate(_TALK, [self._path, fields])
        return status, path
