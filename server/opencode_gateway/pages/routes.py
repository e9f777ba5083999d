"""The pages on which a person logs in and says whether a client may act for them.

`/login?request=…` and `/consent?request=…` each show a form and take it. What a client asked for is in `request`,
signed (`requests.py`); who has just logged in is in a signed cookie (`csrf.py`). Nothing is stored; which requests
were answered lies in memory for as long as they last.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote, urlsplit

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from opencode_gateway.audit import Event
from opencode_gateway.capabilities import MEANING
from opencode_gateway.errors import ConfigError, GatewayError, Refused
from opencode_gateway.oauth.requests import LIFETIME_SECONDS
from opencode_gateway.pages.browsers import Browsers
from opencode_gateway.pages.forms import Answered, foreign, of_another, read_fields, start_again
from opencode_gateway.pages.rendering import STYLE_PATH, page, problem_page, style, unavailable_page
from opencode_gateway.people.users import MAX_NAME, known_as
from opencode_gateway.sign_in.password import Logins, Typed, WrongLogin
from opencode_gateway.sign_in.passwords import Busy
from opencode_gateway.sign_in.throttle import Buckets, Budget, Throttled, is_window_code, window_code

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.requests import Request

    from opencode_gateway.capabilities import Capability
    from opencode_gateway.oauth.requests import Pending, PendingRequests
    from opencode_gateway.pages.browsers import Page
    from opencode_gateway.people.users import User

log = logging.getLogger(__name__)
LOGIN_PATH: Final = "/login"
CONSENT_PATH: Final = "/consent"
_BUSY_SECONDS: Final = 5
_LOGGED_THROTTLING: Final = Budget(5, 60)
"""Audit lines about attempts that were not looked at: a storm must not push everything else out of the log."""
_ANSWERS: Final = Budget(1, LIFETIME_SECONDS)
"""To one request: a browser that keeps the cookie that it was told to drop gets no second code."""
_MAX_ANSWERED: Final = 1000
"""Only people who logged in add to them."""


class Provider(Protocol):
    """What the authorization server does once a person has answered."""

    @property
    def requests(self) -> PendingRequests:
        """Reads what `/authorize` signed."""

    async def grant(self, pending: Pending, login: str, capabilities: Iterable[str]) -> str:
        """Grant; return where to send the person. Raises `GatewayError`."""

    def refuse(self, pending: Pending) -> str:
        """Return where to send a person who said no."""


def routes(
    provider: Provider,
    logins: Logins,
    *,
    key: bytes,
    public_url: str,
    window: Callable[[], float | None] = lambda: None,
    on_event: Callable[[Event], None] = lambda event: None,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> list[Route]:
    """Return the routes of the pages.

    Args:
        provider: reads what is asked, and answers it.
        logins: checks who that is.
        key: the service's own; see `requests.signing_key`.
        public_url: as in the configuration.
        window: when the enrolment window was opened that is open now, if one is.
        on_event: hears of logins and answers.
        clock: seconds since the epoch.
        monotonic: seconds, for budgets.
    """
    pages = _Pages(
        provider,
        logins,
        key=key,
        public_url=public_url,
        window=window,
        on_event=on_event,
        clock=clock,
        monotonic=monotonic,
    )
    return [
        Route(LOGIN_PATH, _answering(pages.show_login), methods=["GET"]),
        Route(LOGIN_PATH, _answering(pages.take_login), methods=["POST"]),
        Route(CONSENT_PATH, _answering(pages.show_consent), methods=["GET"]),
        Route(CONSENT_PATH, _answering(pages.take_consent), methods=["POST"]),
        Route(STYLE_PATH, style, methods=["GET"]),
    ]


def _answering(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await handle(request)
        except Answered as answered:
            return answered.response
        except ConfigError:  # logged where it was found
            return problem_page(
                "Nobody can log in at the moment",
                "The gateway cannot read its list of users. If this relay is yours, its log says what is wrong:",
                command="sudo docker logs opencode-gateway",
                status=503,
            )
        except GatewayError:
            log.exception("%s cannot be answered", request.url.path)
            return unavailable_page()

    return answer


class _Pages:
    def __init__(
        self,
        provider: Provider,
        logins: Logins,
        *,
        key: bytes,
        public_url: str,
        window: Callable[[], float | None],
        on_event: Callable[[Event], None],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._logins = logins
        self._key = key
        self._site = urlsplit(public_url).netloc
        self._window = window
        self._on_event = on_event
        self._browsers = Browsers(key, https=public_url.startswith("https:"), clock=clock)
        self._throttling = Buckets(_LOGGED_THROTTLING, monotonic, max_keys=1)
        self._answered = Buckets(_ANSWERS, monotonic, max_keys=_MAX_ANSWERED)

    # The login page.

    async def show_login(self, request: Request) -> Response:
        """Show the form."""
        signed, pending = self._pending(request.query_params.get("request", ""))
        return self._login_page(request, signed, pending)

    async def take_login(self, request: Request) -> Response:
        """Check who that is, and lead on to the consent page."""
        fields, signed, pending, mark = await self._form(request, "login")
        name, code = fields("name"), fields("code")
        opened_at = self._window()
        expected = None if opened_at is None else window_code(self._key, opened_at)
        device = self._browsers.device(request, known_as(name))
        typed = Typed(
            name=name,
            password=fields("password"),
            code=code,
            address=_address(request),
            device=device,
            window=expected if expected and is_window_code(fields("window"), expected) else None,
        )
        try:
            user = await self._logins.check(typed)
        except WrongLogin:
            self._report(request, pending, "login", "refused", login=name)
            message = "That is not right. Look at the name, the password and, if you use one, the one-time code."
            return self._login_page(
                request, signed, pending, name=name, message=message, status=403, asks_window=bool(fields("window"))
            )
        except Throttled as error:
            if not self._throttling.wait(None):
                self._throttling.take(None)
                self._report(request, pending, "login", "throttled", login=name)
            message = f"Too many attempts: this one was not looked at. Wait {_duration(error.wait)}, then try again."
            return self._login_page(
                request, signed, pending, name=name, message=message, status=429, wait=error.wait, asks_window=True
            )
        except Busy:
            message = "Too many people log in just now: this was not looked at. Try again in a few seconds."
            return self._login_page(
                request, signed, pending, name=name, message=message, status=503, wait=_BUSY_SECONDS
            )
        self._report(request, pending, "login", "ok", login=user.name)
        response = _redirect(f"{CONSENT_PATH}?request={quote(signed, safe='')}")
        self._browsers.logged_in(response, user, mark, signed, device)
        return response

    def _login_page(
        self,
        request: Request,
        signed: str,
        pending: Pending,
        *,
        name: str = "",
        message: str | None = None,
        status: int = 200,
        wait: float | None = None,
        asks_window: bool = False,
    ) -> Response:
        users = self._logins.users.load()
        if not users:
            raise Answered(
                problem_page(
                    "Nobody can log in yet",
                    "This relay has no users. If it is yours, add yourself on it, then connect anew from your chat:",
                    command="sudo opencode-gateway users add NAME",
                    status=503,
                )
            )
        values: dict[str, object] = {
            "name": name[:MAX_NAME],
            "message": message,
            "asks_code": any(user.totp_secret for user in users.values()),
            "asks_window": asks_window,
        }
        return self._with_token(request, signed, pending, "login", values, status=status, wait=wait)

    # The consent page.

    async def show_consent(self, request: Request) -> Response:
        """Show what the client asks for."""
        signed, pending = self._pending(request.query_params.get("request", ""))
        user = self._browsers.login(request, signed, self._logins.users.load().get)
        if user is None:
            return _redirect(f"{LOGIN_PATH}?request={quote(signed, safe='')}")
        if self._answered.wait(_digest(signed)):
            raise Answered(_over())
        return self._consent_page(request, signed, pending, user, ticked=pending.capabilities)

    async def take_consent(self, request: Request) -> Response:
        """Send the person back to the client, with a code or without."""
        fields, signed, pending, _ = await self._form(request, "consent")
        user = self._browsers.login(request, signed, self._logins.users.load().get)
        if user is None or self._answered.wait(_digest(signed)):
            raise Answered(_over())
        chosen = [each for each in _grantable(pending, user) if fields(f"capability-{each}")]
        decision = fields("decision")
        if decision == "allow" and not chosen:
            message = "Tick at least one thing that it may do, or do not allow it."
            return self._consent_page(request, signed, pending, user, ticked=(), message=message, status=400)
        if decision == "allow":
            try:
                location = await self._provider.grant(pending, user.name, chosen)
            except Refused as error:
                self._report(request, pending, "consent", "refused", login=user.name)
                raise Answered(
                    start_again("This is not possible", f"The gateway says: {error}.", status=409)
                ) from None
            self._report(request, pending, "consent", "allowed", login=user.name, capabilities=chosen)
        elif decision == "deny":
            location = self._provider.refuse(pending)
            self._report(request, pending, "consent", "denied", login=user.name)
        else:
            raise Answered(start_again("This form is not complete", "The gateway did not understand it."))
        self._answered.take(_digest(signed))
        response = _redirect(location)
        self._browsers.end_login(response)
        return response

    def _consent_page(
        self,
        request: Request,
        signed: str,
        pending: Pending,
        user: User,
        *,
        ticked: Iterable[Capability],
        message: str | None = None,
        status: int = 200,
    ) -> Response:
        if pending.only_login not in {None, user.name}:
            raise Answered(of_another(pending.client_name, user.name))
        grantable = _grantable(pending, user)
        if not grantable:
            raise Answered(
                problem_page(
                    "You may not do what this client asks for",
                    f"{user.name} has none of the capabilities that it needs. Ask the owner of this relay.",
                    status=403,
                )
            )
        values: dict[str, object] = {
            "user": user.name,
            "message": message,
            "capabilities": [(each, MEANING[each], each in ticked) for each in grantable],
        }
        return self._with_token(request, signed, pending, "consent", values, status=status)

    # What both share.

    def _pending(self, signed: str) -> tuple[str, Pending]:
        pending = self._provider.requests.read(signed)
        if pending is None:
            raise Answered(
                start_again(
                    "This request is over", "A request to connect lasts ten minutes, and this one is not good now."
                )
            )
        return signed, pending

    async def _form(self, request: Request, of: Page) -> tuple[Callable[[str], str], str, Pending, str]:
        """Return the fields of a form that this browser got from us for its request; else answer what is wrong."""
        # Sent by every current browser. A request without it has its token to show, as any other.
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise Answered(foreign())
        fields = await read_fields(request)
        signed, pending = self._pending(fields("request"))
        mark = self._browsers.known(request)
        if mark is None:
            raise Answered(
                start_again(
                    "Your browser sent no cookie back",
                    "This page needs cookies until you are done: allow them for this site, or leave the private tab.",
                )
            )
        if not self._browsers.is_token(fields("token"), mark, signed, of):
            raise Answered(foreign())
        return fields, signed, pending, mark

    def _with_token(
        self,
        request: Request,
        signed: str,
        pending: Pending,
        of: Page,
        values: dict[str, object],
        *,
        status: int,
        wait: float | None = None,
    ) -> Response:
        # The mark goes into the form as well as into a cookie, and the cookie needs a response first.
        marked = Response()
        mark = self._browsers.mark(request, marked)
        shown: dict[str, object] = {
            "site": self._site,
            "client": pending.client_name,
            "vouched_by": urlsplit(pending.client_id).hostname if pending.document else None,
            "returns_to": pending.redirect_host,
            "resource": pending.resource,
            "request": signed,
            "token": self._browsers.token(mark, signed, of),
        }
        response = page(f"{of}.html", shown | values, status=status, leads_away=of == "consent", wait=wait)
        response.raw_headers.extend(header for header in marked.raw_headers if header[0] == b"set-cookie")
        return response

    def _report(
        self, request: Request, pending: Pending, event: str, outcome: str, *, login: str, **details: object
    ) -> None:
        # People type passwords into the wrong field: only names that exist are written down.
        name = known_as(login)
        self._on_event(
            Event(
                event=event,
                outcome=outcome,
                login=name if name in self._logins.users.load() else None,
                kind="password",
                client_id=pending.client_id,
                client_name=pending.client_name,
                address=_address(request),
                details=details,
            )
        )


def _grantable(pending: Pending, user: User) -> list[Capability]:
    return [each for each in user.capabilities if each in pending.capabilities]


def _digest(signed: str) -> bytes:
    return hashlib.sha256(signed.encode()).digest()


def _over() -> Response:
    return start_again("This step is over", "It was answered already, or took too long.", status=403)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _redirect(location: str) -> Response:
    # 303: a browser must not send the form on (RFC 9700, 4.12).
    return RedirectResponse(location, 303, {"Cache-Control": "no-store", "Referrer-Policy": "same-origin"})


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, math.ceil(seconds))} seconds"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minute{'s' if minutes > 1 else ''}"
