"""What the pages give a browser to bring back, all of it signed and none of it stored.

A form's token belongs to one browser, one pending request and one page: nobody can make another browser send it.
Cookies: `browser` (random; makes the token the browser's), `login` (who has just logged in, for one request and ten
minutes), `device` (an account that was logged in to from this browser before; see `throttle.py` and `renewals.py`),
`session` (the secret of a session on our own pages; see `sessions.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from itsdangerous import BadSignature, TimestampSigner, URLSafeTimedSerializer

from opencode_gateway.oauth.requests import LIFETIME_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from opencode_gateway.people.directory import Person

DEVICE_SECONDS: Final = 180 * 24 * 3600
SESSION_SECONDS: Final = 12 * 3600
_MAX_SIGNED: Final = 1024
_RANDOM: Final = re.compile(r"[A-Za-z0-9_-]{43}")

Page = Literal["login", "consent"]


@dataclass(frozen=True)
class _Cookie:
    name: str
    seconds: int | None
    same_site: Literal["lax", "strict"]


_BROWSER: Final = _Cookie("browser", None, "lax")
"""Lax: sent when a chat client's site leads here, so that a second tab does not take the first one's place."""
_LOGIN: Final = _Cookie("login", LIFETIME_SECONDS, "lax")
"""Lax: who comes back from an identity provider comes from another site. To answer takes a form's token besides."""
_DEVICE: Final = _Cookie("device", DEVICE_SECONDS, "lax")
"""Lax: `/authorize` looks at it when a chat client's site leads there. Another site can have that visited and gets
nothing by it: forms are taken from this site alone, and a login and a consent follow in any case."""
_SESSION: Final = _Cookie("session", SESSION_SECONDS, "lax")
"""Lax: a message in another program leads to a page, and who is logged in must not have to do so again. What changes
something is a form, which another site can neither read nor send."""


class BrowserCookies:
    """Signs and checks.

    Args:
        key: the service's own.
        https: whether browsers reach the pages by https: cookies are then `__Host-` and `Secure`.
        clock: seconds since the epoch.
    """

    def __init__(self, key: bytes, *, https: bool, clock: Callable[[], float] = time.time) -> None:
        class Signer(TimestampSigner):
            def get_timestamp(self) -> int:
                return int(clock())

        def serializer(purpose: str) -> URLSafeTimedSerializer:
            return URLSafeTimedSerializer(key, salt=f"pages-{purpose}", signer=Signer)

        self._key = key
        self._https = https
        self._forms = serializer("form")
        self._logins = serializer("login")
        self._devices = serializer("device")
        self._session_forms = serializer("session-form")

    def known(self, request: Request) -> str | None:
        """Return what marks this browser, if it has been here and keeps cookies."""
        mark = self._cookie(request, _BROWSER)
        return mark if mark and _RANDOM.fullmatch(mark) else None

    def mark(self, request: Request, response: Response) -> str:
        """Return what marks this browser, which gets a mark with `response` if it has none."""
        mark = self.known(request) or secrets.token_urlsafe(32)
        self._set(response, _BROWSER, mark)
        return mark

    def token(self, mark: str, pending: str, page: Page) -> str:
        """Return the token for the form of `page` about the signed request `pending`."""
        return str(self._forms.dumps([_digest(mark, pending), page]))

    def is_token(self, token: str, mark: str, pending: str, page: Page) -> bool:
        """Tell whether it is one, made in the last ten minutes."""
        return bool(_loads(self._forms, token, LIFETIME_SECONDS) == [_digest(mark, pending), page])

    def logged_in(self, response: Response, person: Person, mark: str, pending: str, device: str | None) -> None:
        """Let the browser show for ten minutes, for this request alone, who logged in; and that it is theirs."""
        signed = self._logins.dumps([person.login, self.credentials(person), _digest(mark, pending)])
        self._set(response, _LOGIN, str(signed))
        self.remember(response, person, device)

    def remember(self, response: Response, person: Person, device: str | None) -> None:
        """Let the browser show for 180 days that this person has logged in from it."""
        self._set(response, _DEVICE, str(self._devices.dumps([person.login, device or secrets.token_urlsafe(16)])))

    def login(self, request: Request, pending: str, find: Callable[[str], Person | None]) -> Person | None:
        """Return who logged in for this request from this browser, as they were when they did; else None."""
        content = _loads(self._logins, self._cookie(request, _LOGIN), LIFETIME_SECONDS)
        mark = self.known(request)
        if not isinstance(content, list) or mark is None:
            return None
        login, state, digest = content
        person = find(login)
        if person is None or digest != _digest(mark, pending) or state != self.credentials(person):
            return None
        return person

    def end_login(self, response: Response) -> None:
        """Take back what `logged_in` gave for the consent page."""
        self._drop(response, _LOGIN)

    def session(self, request: Request) -> str | None:
        """Return the secret of the session that this browser says it has."""
        secret = self._cookie(request, _SESSION)
        return secret if secret and _RANDOM.fullmatch(secret) else None

    def begin_session(self, response: Response) -> str:
        """Return the secret of a new session, which the browser gets with `response`."""
        secret = secrets.token_urlsafe(32)
        self._set(response, _SESSION, secret)
        return secret

    def end_session(self, response: Response) -> None:
        """Take the session's secret back."""
        self._drop(response, _SESSION)

    def session_token(self, session: str, purpose: str) -> str:
        """Return the token for the forms of one purpose in one session, by its id."""
        return str(self._session_forms.dumps([session, purpose]))

    def is_session_token(self, token: str, session: str, purpose: str) -> bool:
        """Tell whether it is one, made for no longer than a session lasts."""
        return bool(_loads(self._session_forms, token, SESSION_SECONDS) == [session, purpose])

    def device(self, request: Request, name: str) -> str | None:
        """Return what tells this browser from others, if somebody logged in from it as `name` before."""
        content = self._device(request)
        return content[1] if content is not None and content[0] == name else None

    def last_login(self, request: Request) -> str | None:
        """Return who logged in last from this browser, in 180 days. It proves nothing about who sits there now."""
        content = self._device(request)
        return None if content is None else content[0]

    def _device(self, request: Request) -> tuple[str, str] | None:
        content = _loads(self._devices, self._cookie(request, _DEVICE), DEVICE_SECONDS)
        return (str(content[0]), str(content[1])) if isinstance(content, list) else None

    def credentials(self, person: Person) -> str:
        """Return what changes with the password and with one-time codes: a login by the old ones is then void."""
        return hmac.new(self._key, b"login-state " + person.credentials.encode(), "sha256").hexdigest()[:32]

    def _name(self, cookie: _Cookie) -> str:
        return f"__Host-{cookie.name}" if self._https else cookie.name

    def _cookie(self, request: Request, cookie: _Cookie) -> str | None:
        return request.cookies.get(self._name(cookie))

    def _drop(self, response: Response, cookie: _Cookie) -> None:
        response.delete_cookie(
            self._name(cookie), path="/", secure=self._https, httponly=True, samesite=cookie.same_site
        )

    def _set(self, response: Response, cookie: _Cookie, value: str) -> None:
        response.set_cookie(
            self._name(cookie),
            value,
            max_age=cookie.seconds,
            path="/",
            secure=self._https,
            httponly=True,
            samesite=cookie.same_site,
        )


def _digest(mark: str, pending: str) -> str:
    return hashlib.sha256(f"{mark} {pending}".encode()).hexdigest()


def _loads(serializer: URLSafeTimedSerializer, signed: str | None, seconds: int) -> object:
    if not signed or len(signed) > _MAX_SIGNED:
        return None
    try:
        return serializer.loads(signed, max_age=seconds)
    except BadSignature:
        return None
