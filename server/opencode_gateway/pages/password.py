"""The page on which a person logs in with a password."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from opencode_gateway.pages.passkey_login import PasskeyLogin
from opencode_gateway.pages.visits import LOGIN_PATH, address_of
from opencode_gateway.people.users import MAX_NAME, known_as
from opencode_gateway.sign_in.password import Typed, WrongLogin
from opencode_gateway.sign_in.passwords import HashingBusy
from opencode_gateway.sign_in.step import BY_PASSWORD
from opencode_gateway.sign_in.throttle import Buckets, Budget, Throttled, is_window_code, window_code
from opencode_pages.rendering import problem_page
from opencode_pages.visits import Answered

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from opencode_gateway.oauth.requests import Asked
    from opencode_gateway.pages.visits import LoginVisits
    from opencode_gateway.people.directory import Person
    from opencode_gateway.sign_in.passkeys import Passkeys
    from opencode_gateway.sign_in.password import Logins
    from opencode_gateway.sign_in.step import Proof

_BUSY_SECONDS: Final = 5
_LOGGED_THROTTLING: Final = Budget(5, 60)
"""Audit lines about attempts that were not looked at: a storm must not push everything else out of the log."""


class PasswordPages:
    """See `LoginPages`.

    Args:
        visits: what all pages share.
        logins: checks who somebody is.
        key: the service's own, of which the window's code is made.
        window: when the enrolment window was opened that is open now, if one is.
        clock: seconds.
        passkeys: log in as well; None: they do not.
    """

    at = None

    def __init__(
        self,
        visits: LoginVisits,
        logins: Logins,
        *,
        key: bytes,
        window: Callable[[], float | None],
        clock: Callable[[], float],
        passkeys: Passkeys | None = None,
    ) -> None:
        self._visits = visits
        self._logins = logins
        self._key = key
        self._window = window
        self._throttling = Buckets(_LOGGED_THROTTLING, clock, max_keys=1)
        self._clock = clock
        self._passkeys = passkeys if passkeys is not None and passkeys.possible else None

    def routes(self) -> list[Route]:
        """See `LoginPages`."""
        shown = [Route(LOGIN_PATH, self.show, methods=["GET"]), Route(LOGIN_PATH, self.take, methods=["POST"])]
        if self._passkeys is not None:
            shown += PasskeyLogin(self._visits, self._passkeys, self._page, self._clock).routes()
        return shown

    def proved(self, request: Request, signed: str) -> tuple[Person, Proof] | None:
        """See `LoginPages`."""
        person = self._visits.browsers.login(request, signed, self._logins.users.find)
        return None if person is None else (person, BY_PASSWORD)

    async def show(self, request: Request) -> Response:
        """Show the form."""
        signed, asked = self._visits.asked(request.query_params.get("request", ""))
        return self._page(request, signed, asked)

    async def take(self, request: Request) -> Response:
        """Check who that is, and lead on."""
        fields, signed, asked, mark = await self._visits.form(request, "login", self._visits.asked)
        name, code = fields("name"), fields("code")
        opened_at = self._window()
        expected = None if opened_at is None else window_code(self._key, opened_at)
        typed = Typed(
            name=name,
            password=fields("password"),
            code=code,
            address=address_of(request),
            device=self._visits.browsers.device(request, known_as(name)),
            window=expected if expected and is_window_code(fields("window"), expected) else None,
        )
        try:
            user = await self._logins.check(typed)
        except WrongLogin:
            self._report(request, asked, "refused", name)
            message = "That is not right. Look at the name, the password and, if you use one, the one-time code."
            return self._page(
                request, signed, asked, name=name, message=message, status=403, asks_window=bool(fields("window"))
            )
        except Throttled as error:
            if not self._throttling.wait(None):
                self._throttling.take(None)
                self._report(request, asked, "throttled", name)
            message = f"Too many attempts: this one was not looked at. Wait {_duration(error.wait)}, then try again."
            return self._page(
                request, signed, asked, name=name, message=message, status=429, wait=error.wait, asks_window=True
            )
        except HashingBusy:
            message = "Too many people log in just now: this was not looked at. Try again in a few seconds."
            return self._page(request, signed, asked, name=name, message=message, status=503, wait=_BUSY_SECONDS)
        self._report(request, asked, "ok", user.name)
        return await self._visits.logged_in(request, user.person, BY_PASSWORD, asked, signed=signed, mark=mark)

    def _page(
        self,
        request: Request,
        signed: str,
        asked: Asked,
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
                    "This relay has no users. If it is yours, add yourself on it, then come again:",
                    command="sudo opencode-gateway users add NAME",
                    status=503,
                )
            )
        values: dict[str, object] = {
            "name": name[:MAX_NAME],
            "message": message,
            "asks_code": any(user.totp_secret for user in users.values()),
            "asks_window": asks_window,
            "passkeys": self._passkeys is not None,
        }
        return self._visits.with_token(
            request, signed, asked, "login", values, status=status, wait=wait, has_script=self._passkeys is not None
        )

    def _report(self, request: Request, asked: Asked, outcome: str, typed: str) -> None:
        # People type passwords into the wrong field: only names that exist are written down.
        name = known_as(typed)
        login = name if name in self._logins.users.load() else None
        self._visits.report(request, asked, "login", outcome, login=login)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, math.ceil(seconds))} seconds"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minute{'s' if minutes > 1 else ''}"
