"""A login by a passkey, in place of name, password and one-time code, on the same page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from starlette.responses import Response
from starlette.routing import Route

from opencode_gateway.pages.visits import LOGIN_PATH, address_of
from opencode_gateway.sign_in.passkeys import PasskeyRefused
from opencode_gateway.sign_in.step import BY_PASSWORD
from opencode_gateway.sign_in.throttle import Buckets, Budget

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from opencode_gateway.oauth.requests import Asked
    from opencode_gateway.pages.visits import LoginVisits
    from opencode_gateway.sign_in.passkeys import Passkeys

_LOGGED_REFUSALS: Final = Budget(5, 60)
"""Audit lines of one address: whoever sends rubbish must not push everything else out of the log."""


class Again(Protocol):
    """Shows the login page once more."""

    def __call__(self, request: Request, signed: str, asked: Asked, *, message: str, status: int) -> Response:
        """Return it."""


class PasskeyLogin:
    """Asks a browser for a passkey of anybody, and lets in whose it is.

    Args:
        visits: what all pages of a login share.
        passkeys: of all people.
        again: shows the login page with a message.
        clock: seconds.
    """

    def __init__(self, visits: LoginVisits, passkeys: Passkeys, again: Again, clock: Callable[[], float]) -> None:
        self._visits = visits
        self._passkeys = passkeys
        self._again = again
        self._refusals = Buckets(_LOGGED_REFUSALS, clock)

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(f"{LOGIN_PATH}/passkey/options", self.options, methods=["POST"]),
            Route(f"{LOGIN_PATH}/passkey", self.take, methods=["POST"]),
        ]

    async def options(self, request: Request) -> Response:
        """Answer a script with what is to be signed. Nothing is kept of it."""
        _fields, signed, _asked, mark = await self._visits.form(request, "login", self._visits.asked)
        return Response(self._passkeys.logging_in(_browser(mark, signed)), media_type="application/json")

    async def take(self, request: Request) -> Response:
        """See whose passkey that is, and lead on."""
        fields, signed, asked, mark = await self._visits.form(request, "login", self._visits.asked)
        try:
            person = await self._passkeys.log_in(_browser(mark, signed), fields("passkey"))
        except PasskeyRefused as error:
            if not self._refusals.wait(address_of(request)):
                self._refusals.take(address_of(request))
                self._visits.report(request, asked, "login", "refused", login=None, by="passkey", why=error.why)
            return self._again(request, signed, asked, message=str(error), status=403)
        self._visits.report(request, asked, "login", "ok", login=person.login, by="passkey")
        # For whoever asks how people log in here it is the gateway's own way, as the password is.
        return await self._visits.logged_in(request, person, BY_PASSWORD, asked, signed=signed, mark=mark)


def _browser(mark: str, signed: str) -> str:
    """Return what a login belongs to: this browser, and what it logs in for."""
    return f"{mark} {signed}"
