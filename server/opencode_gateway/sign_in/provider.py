"""People log in at an identity provider, and are asked about there again: authorization code, PKCE and nonce.

Nothing is kept of a login that goes on. What the provider hands back as `state` holds the pending request, signed
together with what marks the browser; PKCE's verifier and the nonce are made from it with a key that nobody else has.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import stat
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from cryptography.fernet import Fernet, InvalidToken

from opencode_gateway.errors import ConfigError
from opencode_gateway.key_files import load_key
from opencode_gateway.people.listed import ListedPeople, PersonRefused
from opencode_gateway.sign_in import identities
from opencode_gateway.sign_in.asking import RefusedByProvider, TokenEndpoint, understood
from opencode_gateway.sign_in.identities import GitHub, OpenID
from opencode_gateway.sign_in.step import LoginEnded, Proof, ProviderFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from opencode_gateway.configuration import ProviderSignIn
    from opencode_gateway.sign_in.identities import Identity
    from opencode_gateway.sign_in.step import Kind

CALLBACK_PATH: Final = "/auth/callback"
"""What the owner registers at the provider, behind `public_url`."""
KEY_FILE: Final = "provider.key"
"""It is no other secret's child: changing the client's secret at the provider ends no session."""
RECHECK_SECONDS: Final = 3600
"""How long a login counts at most before the provider is asked again, where it can be asked without the person."""
UNTOLD_SECONDS: Final = 3600
"""How long a login counts whose length the provider does not say, and which cannot be renewed."""
MAX_SECONDS: Final = 24 * 3600
_ENDED: Final = frozenset({"invalid_grant", "bad_refresh_token"})


class ProviderLogins:
    """Everything that decides about a login at a provider.

    Args:
        identity: the provider.
        people: who may come in.
        client_id: ours at the provider, and `client_secret`.
        callback: where the provider sends people back to.
        key: 32 bytes, of this purpose alone.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        identity: Identity,
        people: ListedPeople,
        *,
        client_id: str,
        client_secret: str,
        callback: str,
        key: bytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.kind: Kind = identity.kind
        self.name = identity.name
        self.people = people
        self._identity = identity
        self._client_id = client_id
        self._callback = callback
        self._key = key
        self._clock = clock
        endpoints = identity.endpoints
        self._endpoint = TokenEndpoint(
            identity.name, endpoints.token, client_id, client_secret, endpoints.authentication
        )
        self._renewals = Fernet(base64.urlsafe_b64encode(hmac.digest(key, b"renewals", "sha256")))

    # A login.

    def leave(self, request: str, mark: str) -> str:
        """Return the provider's address for a person's browser, which logs in for a pending request.

        Args:
            request: the pending request, as it is signed.
            mark: what nobody but this browser has.
        """
        salt = secrets.token_urlsafe(12)
        state = f"{salt}.{self._made(f'state {salt} {mark} {request}')}.{request}"
        endpoints = self._identity.endpoints
        challenge = hashlib.sha256(self._verifier(state).encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._callback,
            "scope": " ".join(endpoints.scopes),
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
            "code_challenge_method": "S256",
            **({} if self.kind == "github" else {"nonce": self._nonce(state)}),
            **endpoints.parameters,
        }
        return f"{endpoints.authorization}{'&' if '?' in endpoints.authorization else '?'}{urlencode(asked)}"

    def request_of(self, state: str, mark: str) -> str | None:
        """Return the pending request for which this very browser was sent away with `state`; None for any other."""
        salt, _, rest = state.partition(".")
        signature, _, request = rest.partition(".")
        made = self._made(f"state {salt} {mark} {request}")
        return request if hmac.compare_digest(signature.encode(errors="replace"), made.encode()) else None

    def sent(self, iss: str | None) -> bool:
        """Tell whether an answer with this `iss` can be the provider's."""
        return self._identity.sent(iss)

    async def come_back(self, state: str, code: str) -> tuple[str, Proof]:
        """Exchange the provider's code, and return who has logged in.

        Args:
            state: which `request_of` took.
            code: which came with it.

        Raises:
            PersonRefused: they are not let in.
            ProviderFailed: the provider does not answer, or not as it must.
        """
        grant = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._callback,
            "code_verifier": self._verifier(state),
        }
        try:
            answer = await self._endpoint.tokens(grant)
            claim = await self._identity.claim(answer, self._nonce(state))
        except RefusedByProvider as error:
            raise ProviderFailed(f"{self.name} did not accept this login ({error.error})") from error
        if claim is None:
            raise ProviderFailed(f"{self.name} did not say who logged in")
        login = self.people.admit(claim.address, verified=claim.verified, provider=self.name)
        return login, self._proof(answer)

    # The session that came of it.

    async def again(self, login: str, renewal: bytes) -> Proof:
        """See `Renewing`."""
        how, token = self._opened(renewal)
        changed: bytes | None = None
        try:
            if how == "access":
                answer: Mapping[str, Any] = {"access_token": token}
            else:
                # One that is not replaced goes on (RFC 6749, 6).
                given = await self._endpoint.tokens({"grant_type": "refresh_token", "refresh_token": token})
                answer = {**given, "refresh_token": given.get("refresh_token") or token}
                changed = self._proof(answer).renewal
            claim = await self._identity.claim(answer, None)
            known = login if claim is None else self._admitted(claim.address, claim.verified)
        except RefusedByProvider as error:
            if error.error in _ENDED:
                raise LoginEnded("provider-ended", f"the session at {self.name} has ended") from error
            raise ProviderFailed(f"{self.name} did not renew a session ({error.error})", changed) from error
        except ProviderFailed as failure:
            failure.renewal = changed
            raise
        if known != login:
            raise LoginEnded("person-refused", f"{self.name} says that this is another person now")
        return self._proof(answer)

    def _admitted(self, address: object, verified: object) -> str:
        try:
            return self.people.admit(address, verified=verified, provider=self.name)
        except PersonRefused as refusal:
            raise LoginEnded("person-refused", str(refusal)) from refusal

    def _opened(self, renewal: bytes) -> tuple[str, str]:
        """Return with what the provider is asked, and in which way."""
        try:
            whose, how, token = json.loads(self._renewals.decrypt(renewal))
        except (InvalidToken, ValueError) as error:
            raise LoginEnded("renewal-lost", f"{KEY_FILE} was replaced: log in anew") from error
        if whose != self._identity.endpoints.token:
            raise LoginEnded("renewal-lost", "people log in elsewhere now: log in anew")
        return str(how), str(token)

    def _proof(self, answer: Mapping[str, Any]) -> Proof:
        """Return what is kept of an answer of the token endpoint."""
        renewal = None
        with understood(self.name):
            seconds = min(int(answer.get("expires_in") or UNTOLD_SECONDS), MAX_SECONDS)
            if answer.get("refresh_token"):
                renewal = self._sealed("refresh", str(answer["refresh_token"]))
            elif self.kind == "github":
                # It gives none, and is asked with the token itself.
                renewal = self._sealed("access", str(answer["access_token"]))
        if renewal is not None:
            seconds = min(seconds, RECHECK_SECONDS)
        if seconds <= 0:
            raise ProviderFailed(f"{self.name} gave a token that has ended")
        return Proof(self.kind, renewal, self._clock() + seconds)

    def _sealed(self, how: str, token: str) -> bytes:
        content = json.dumps([self._identity.endpoints.token, how, token])
        return self._renewals.encrypt(content.encode())

    def _verifier(self, state: str) -> str:
        return self._made(f"verifier {state}")

    def _nonce(self, state: str) -> str:
        return self._made(f"nonce {state}")

    def _made(self, of: str) -> str:
        """Return 43 characters that only this gateway can make of this."""
        digest = hmac.digest(self._key, of.encode(errors="replace"), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def provider_logins(
    sign_in: ProviderSignIn, data_dir: Path, public_url: str, clock: Callable[[], float] = time.time
) -> ProviderLogins:
    """Return the way to log in that `sign_in` names.

    Reads the discovery document of an OpenID provider: if that does not answer, there is no gateway until whatever
    starts it has tried again.

    Raises:
        ConfigError: a setting or the client's secret cannot be used, or the provider does not answer as it must.
        StoreError: the key cannot be read or made.
    """
    people = ListedPeople(sign_in.users)
    secret = _secret(sign_in.client_secret_file)
    key = load_key(data_dir / KEY_FILE, without="people log in anew")
    if sign_in.mode == "github":
        identity: Identity = GitHub()
    else:
        issuer = identities.GOOGLE_ISSUER if sign_in.mode == "google" else str(sign_in.issuer)
        identity = OpenID(sign_in.mode, issuer, sign_in.client_id)
    return ProviderLogins(
        identity,
        people,
        client_id=sign_in.client_id,
        client_secret=secret,
        callback=f"{public_url}{CALLBACK_PATH}",
        key=key,
        clock=clock,
    )


def _secret(path: Path) -> str:
    """Read the client's secret, which may end in a newline."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4097).decode("ascii").strip("\r\n")
    except OSError as error:
        raise ConfigError(f"sign_in.client_secret_file: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"sign_in.client_secret_file: {path} holds no secret of ASCII characters") from error
    if mode & stat.S_IRWXO:
        raise ConfigError(f"sign_in.client_secret_file: {path} is open to everybody here: `sudo chmod o= {path}`")
    if not 1 <= len(text) <= 4096 or not text.isprintable():
        raise ConfigError(f"sign_in.client_secret_file: {path} must hold one line, the secret alone")
    return text
