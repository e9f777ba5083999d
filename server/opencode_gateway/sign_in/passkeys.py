"""Passkeys: added by who has logged in, a login by themselves, and a signature over one decision.

Whatever comes from a browser may be a stranger's, also what it says of itself. A signature counts when it is by a key
that was added here, over a challenge of ours (`challenges`) for this session and purpose, at our own address, by a
device that has just made sure of its person (user verification).
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from opencode_gateway.configuration import is_named
from opencode_gateway.errors import CommandRefused, GatewayError
from opencode_gateway.sign_in import passkey_rows
from opencode_gateway.sign_in.challenges import SECONDS, Challenges, Stale
from opencode_gateway.sign_in.passkey_answers import Assertion, Attestation, Malformed
from opencode_gateway.sign_in.passkey_rows import Key, Passkey, base64url
from opencode_pages.paths import ACCOUNT_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opencode_gateway.people.directory import Directory, Person
    from opencode_gateway.sign_in.challenges import Claim
    from opencode_gateway.store import Store

_VERIFIED: Final = UserVerificationRequirement.REQUIRED
_TRANSPORTS: Final = {each.value: each for each in AuthenticatorTransport}

log = logging.getLogger(__name__)


class PasskeyRefused(GatewayError):
    """A passkey's answer is not taken. The message is for the person; `why` is for the audit log."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


@dataclass(frozen=True)
class Ask:
    """What a person decides, as they were shown it."""

    handle: str
    digest: str
    answer: str | list[str] = field(repr=False)

    def claim(self, login: str) -> Claim:
        """Return what a signature over it is for."""
        return ("decision", self.handle, self.digest, self.answer, login)


class Passkeys:
    """All that is done with passkeys while the gateway serves.

    Args:
        store: has them.
        directory: says who may come in; a passkey of anybody else is nothing.
        public_url: as in the configuration. Its host is what passkeys belong to.
        clock: seconds since the epoch.
        challenges: made here, unless the caller has others.
    """

    def __init__(
        self,
        store: Store,
        directory: Directory,
        public_url: str,
        *,
        clock: Callable[[], float] = time.time,
        challenges: Challenges | None = None,
    ) -> None:
        self._store = store
        self._directory = directory
        self._origin = public_url
        self._site = urlsplit(public_url).hostname or ""
        self._clock = clock
        self._challenges = challenges or Challenges()
        self._handles = secrets.token_bytes(32)

    @property
    def possible(self) -> bool:
        """Whether there can be any: browsers keep none for an address of numbers."""
        return is_named(self._origin)

    def of(self, login: str) -> list[Passkey]:
        """Return a person's passkeys that are of use here."""
        return [key.passkey for key in passkey_rows.keys(self._store, login, self._site)]

    def missing(self, login: str) -> str:
        """Return why this person can sign nothing, in words with the next step; empty: they can."""
        if not self.possible:
            return "This relay is reached by a number, and browsers keep passkeys for names alone: tell its owner."
        return "" if self.of(login) else f"You have no passkey here: add one at {ACCOUNT_PATH} first."

    # Adding

    def adding(self, login: str, session: str) -> str:
        """Return what a browser needs to make a passkey, as JSON.

        Raises:
            Refused: they have as many as there may be.
        """
        held = passkey_rows.keys(self._store, login)
        if len(held) >= passkey_rows.MAX_PASSKEYS:
            raise CommandRefused(f"You have {len(held)} passkeys, which is as many as there may be: remove one first")
        handle = self._user_handle(login)
        options = generate_registration_options(
            rp_id=self._site,
            rp_name=self._site,
            user_id=handle,
            user_name=login,
            challenge=self._challenges.make(session, _adding(login, handle)),
            timeout=SECONDS * 1000,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED, user_verification=_VERIFIED
            ),
            exclude_credentials=_descriptors(held),
        )
        return options_to_json(options)

    async def add(self, login: str, session: str, name: str, answer: str) -> Passkey:
        """Take a passkey that a browser made.

        Args:
            login: of who is logged in.
            session: theirs, as with `adding`.
            name: what its device is called.
            answer: the browser's, as JSON.

        Raises:
            PasskeyRefused: it does not answer what was asked for.
            Refused: there are as many as there may be, or it is there already.
            StoreError: it cannot be kept now.
        """
        try:
            made = Attestation.read(answer)
            handle = self._user_handle(login)
            self._challenges.check(made.client.challenge, session, _adding(login, handle))
            verified = verify_registration_response(
                credential=made.credential(),
                expected_challenge=made.client.challenge,
                expected_rp_id=self._site,
                expected_origin=self._origin,
                require_user_verification=True,
            )
            self._challenges.spend(made.client.challenge, login)
        except Stale:
            raise _over() from None
        except Exception as error:  # the library meets bytes that anybody may have made
            raise _malformed(error) from error
        passkey = Passkey(
            id=passkey_rows.new_id(),
            login=login,
            name=passkey_rows.device_name(name),
            site=self._site,
            created_at=self._clock(),
            used_at=None,
            credential=base64url(verified.credential_id),
            public_key=base64url(verified.credential_public_key),
        )
        key = Key(
            passkey,
            verified.credential_id,
            handle,
            verified.credential_public_key,
            verified.sign_count,
            tuple(each for each in made.response.transports if each in _TRANSPORTS),
        )
        await self._store.write(lambda db: passkey_rows.add(db, key))
        return passkey

    async def remove(self, login: str, passkey_id: str) -> str | None:
        """Remove one of a person's passkeys; return its name, None if there is none of this id."""
        return await self._store.write(lambda db: passkey_rows.remove(db, login, passkey_id))

    # Logging in

    def logging_in(self, browser: str) -> str:
        """Return what a browser needs to log somebody in, as JSON; `browser` marks it and what it logs in for."""
        return self._asking(browser, ("login",))

    async def log_in(self, browser: str, answer: str) -> Person:
        """Return who that is.

        Raises:
            PasskeyRefused: nobody, or somebody who may not come in.
            ConfigError: the directory cannot be read.
            StoreError: the database does not serve.
        """
        assertion, key = self._key_of(answer)
        person = None if key is None else self._directory.find(key.passkey.login)
        if key is None or person is None or assertion.response.user_handle != key.user_handle:
            raise _unknown()
        await self._signed(assertion, key, browser, ("login",))
        return person

    # Deciding

    def deciding(self, login: str, session: str, ask: Ask) -> str:
        """Return what a browser needs to have a decision signed, as JSON.

        Raises:
            Refused: they have no passkey.
        """
        held = passkey_rows.keys(self._store, login, self._site)
        if missing := self.missing(login):
            raise CommandRefused(missing)
        return self._asking(session, ask.claim(login), held)

    async def decided(self, login: str, session: str, ask: Ask, answer: str) -> str:
        """Return the proof that this person has signed this decision, for the audit log.

        It is `CREDENTIAL.AUTHENTICATOR_DATA.CLIENT_DATA.SIGNATURE`, each base64url: all that was signed, and by what.

        Raises:
            PasskeyRefused: they have not.
            StoreError: the database does not serve.
        """
        assertion, key = self._key_of(answer)
        if key is None or key.passkey.login != login or self._directory.find(login) is None:
            raise _unknown()
        await self._signed(assertion, key, session, ask.claim(login))
        response = assertion.response
        parts = (assertion.raw_id, response.authenticator_data, response.client_data, response.signature)
        return ".".join(base64url(part) for part in parts)

    def _asking(self, session: str, claim: Claim, held: Sequence[Key] = ()) -> str:
        options = generate_authentication_options(
            rp_id=self._site,
            challenge=self._challenges.make(session, claim),
            timeout=SECONDS * 1000,
            allow_credentials=_descriptors(held),
            user_verification=_VERIFIED,
        )
        return options_to_json(options)

    def _key_of(self, answer: str) -> tuple[Assertion, Key | None]:
        try:
            assertion = Assertion.read(answer)
        except Malformed as error:
            raise _malformed(error) from error
        return assertion, passkey_rows.find(self._store, assertion.raw_id, self._site)

    async def _signed(self, assertion: Assertion, key: Key, session: str, claim: Claim) -> None:
        """Look whether a challenge of ours was signed just now, and note it."""
        challenge = assertion.client.challenge
        try:
            self._challenges.check(challenge, session, claim)
            # Its counter is compared below, where it is written.
            verified = verify_authentication_response(
                credential=assertion.credential(),
                expected_challenge=challenge,
                expected_rp_id=self._site,
                expected_origin=self._origin,
                credential_public_key=key.public_key,
                credential_current_sign_count=0,
                require_user_verification=True,
            )
            self._challenges.spend(challenge, key.passkey.login)
        except Stale:
            raise _over() from None
        except Exception as error:  # the library meets bytes that anybody may have made
            raise _malformed(error) from error
        count, now = verified.new_sign_count, self._clock()
        if not await self._store.write(lambda db: passkey_rows.used(db, key, count, now)):
            log.error(
                "a passkey of %s (%s) was removed, or counted backwards: it may have been copied",
                key.passkey.login,
                key.passkey.id,
            )
            raise PasskeyRefused(
                "This was not taken: the passkey has signed more often elsewhere than it says, so it may have been "
                f"copied. If nobody has just removed {key.passkey.name!r}, remove it and add it anew.",
                "the passkey's counter went back, or it was removed",
            )

    def _user_handle(self, login: str) -> bytes:
        """Return what devices know a person by: random, and for all their passkeys the same."""
        held = passkey_rows.keys(self._store, login)
        return held[0].user_handle if held else hmac.digest(self._handles, login.encode(), hashlib.sha256)


def _adding(login: str, handle: bytes) -> Claim:
    return ("add", login, handle.hex())


def _descriptors(held: Sequence[Key]) -> list[PublicKeyCredentialDescriptor]:
    return [
        PublicKeyCredentialDescriptor(
            id=key.credential,
            transports=[_TRANSPORTS[each] for each in key.transports if each in _TRANSPORTS] or None,
        )
        for key in held
    ]


def _over() -> PasskeyRefused:
    return PasskeyRefused(
        "This was not taken: it took longer than five minutes, was sent before, or is about something else. "
        "Press the button again.",
        "the challenge is over, was answered before, or is another's",
    )


def _malformed(error: Exception) -> PasskeyRefused:
    return PasskeyRefused(
        "Your device's answer was not taken: it must be made on this page, by a device that asks for your "
        "fingerprint, face or PIN. Press the button again, or take another device.",
        f"{type(error).__name__}: {error}",
    )


def _unknown() -> PasskeyRefused:
    return PasskeyRefused(
        "This passkey is of no use here: it was removed, or is not yours. Take another one, or log in with your "
        f"password and add it at {ACCOUNT_PATH}.",
        "the passkey is unknown, or of somebody who may not come in",
    )
