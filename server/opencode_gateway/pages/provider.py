"""The way through an identity provider: a person's browser is sent there, and comes back."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from opencode_gateway.errors import CommandRefused
from opencode_gateway.oauth.requests import MAX_SIGNED, Pending
from opencode_gateway.pages.consent import ANSWERS
from opencode_gateway.pages.forms import start_again
from opencode_gateway.pages.visits import LOGIN_PATH, address_of, digest, over
from opencode_gateway.people.listed import PersonRefused
from opencode_gateway.sign_in.provider import CALLBACK_PATH
from opencode_gateway.sign_in.step import ProviderFailed
from opencode_gateway.sign_in.throttle import Buckets, Budget, network
from opencode_pages.rendering import problem_page
from opencode_pages.visits import Answered, redirect

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from opencode_gateway.oauth.provider import Provider
    from opencode_gateway.oauth.requests import Asked
    from opencode_gateway.pages.visits import LoginVisits
    from opencode_gateway.people.directory import Person
    from opencode_gateway.sign_in.provider import ProviderLogins
    from opencode_gateway.sign_in.step import Proof

_LINES: Final = Budget(30, 10)
"""Audit lines about people who are not let in: whoever may ask must not fill the log."""
_QUESTIONS: Final = Budget(20, 5)
"""That one network makes us ask the provider for nothing: it would stop answering us."""
_MAX_STATE: Final = MAX_SIGNED + 100
_MAX_CODE: Final = 4096
_MAX_PROOFS: Final = 1000
"""Of people who have logged in and not yet answered. Only people who are let in add to them."""


class ProviderPages:
    """See `LoginPages`.

    Args:
        server: answers a client whose person was sent back without a login.
        visits: what all pages share.
        logins: checks who somebody is.
        clock: seconds.
    """

    def __init__(
        self, server: Provider, visits: LoginVisits, logins: ProviderLogins, *, clock: Callable[[], float]
    ) -> None:
        self.at = logins.name
        self._server = server
        self._visits = visits
        self._logins = logins
        self._proofs: OrderedDict[bytes, Proof] = OrderedDict()
        """By browser and request. They hold what the provider is asked again with, which no cookie has room for."""
        self._lines = Buckets(_LINES, clock, max_keys=1)
        self._questions = Buckets(_QUESTIONS, clock)
        self._used = Buckets(ANSWERS, clock, max_keys=_MAX_PROOFS)

    def routes(self) -> list[Route]:
        """See `LoginPages`."""
        return [
            Route(LOGIN_PATH, self.leave, methods=["GET"]),
            Route(CALLBACK_PATH, self.come_back, methods=["GET"]),
        ]

    def proved(self, request: Request, signed: str) -> tuple[Person, Proof] | None:
        """See `LoginPages`."""
        person = self._visits.browsers.login(request, signed, self._logins.people.find)
        proof = self._proofs.get(digest(self._visits.browsers.known(request) or "", signed))
        return None if person is None or proof is None else (person, proof)

    async def leave(self, request: Request) -> Response:
        """Send the browser to the provider."""
        signed, _ = self._visits.asked(request.query_params.get("request", ""))
        response = redirect("")
        mark = self._visits.browsers.mark(request, response)
        response.headers["location"] = self._logins.leave(signed, mark)
        return response

    async def come_back(self, request: Request) -> Response:
        """Find out who has logged in, and lead on."""
        state = request.query_params.get("state", "")
        signed, asked, mark = self._begun(request, state)
        code = self._code(request, asked)
        login, proof = await self._exchanged(request, asked, state, code)
        person = self._logins.people.find(login)
        if person is None:
            raise Answered(over(on_pages=not isinstance(asked, Pending)))
        self._visits.report(request, asked, "login", "ok", login=login)
        if isinstance(asked, Pending):
            self._proofs[digest(mark, signed)] = proof
            if len(self._proofs) > _MAX_PROOFS:
                self._proofs.popitem(last=False)
        return await self._visits.logged_in(request, person, proof, asked, signed=signed, mark=mark)

    def _begun(self, request: Request, state: str) -> tuple[str, Asked, str]:
        """Return the request for which this browser was sent away, and its mark; else answer what is wrong."""
        mark = self._visits.browsers.known(request)
        signed = self._logins.request_of(state, mark) if mark is not None and len(state) <= _MAX_STATE else None
        if mark is None or signed is None:
            raise Answered(
                start_again(
                    "This login cannot go on",
                    "It was begun in another browser or not here, or this browser sent no cookie back.",
                    status=403,
                )
            )
        return *self._visits.asked(signed), mark

    def _code(self, request: Request, asked: Asked) -> str:
        """Return the provider's code; else answer what it said instead."""
        said = request.query_params
        if not self._logins.sent(said.get("iss")):
            raise self._failed(request, asked, f"This answer did not come from {self.at}")
        error, code = said.get("error"), said.get("code", "")
        if error == "access_denied":
            self._note(request, asked, "denied")
            if not isinstance(asked, Pending):
                raise Answered(start_again("You are not logged in", f"{self.at} was told no.", on_pages=True))
            try:
                raise Answered(redirect(self._server.refuse(asked)))
            except CommandRefused as refused:
                raise Answered(
                    start_again("This is not possible", f"The gateway says: {refused}.", status=409)
                ) from None
        if error is not None or not 1 <= len(code) <= _MAX_CODE:
            raise self._failed(request, asked, f"{self.at} did not log you in ({(error or 'no code')[:100]})")
        return code

    async def _exchanged(self, request: Request, asked: Asked, state: str, code: str) -> tuple[str, Proof]:
        """Return who the provider says has logged in; else answer why they are not let in."""
        source, on_pages = network(address_of(request)), not isinstance(asked, Pending)
        if self._used.wait(digest(state)):
            raise Answered(over(on_pages=on_pages))
        if self._questions.wait(source):
            why = "Many failed from where you are. Wait a minute."
            raise Answered(start_again("Too many logins", why, status=429, on_pages=on_pages))
        self._used.take(digest(state))
        self._questions.take(source)
        try:
            found = await self._logins.come_back(state, code)
        except PersonRefused as refusal:
            self._note(request, asked, "refused", why=str(refusal))
            raise Answered(problem_page("You are not let in", f"{refusal}.", status=403)) from None
        except ProviderFailed as failure:
            raise self._failed(request, asked, str(failure)) from None
        self._questions.give_back(source)
        return found

    def _failed(self, request: Request, asked: Asked, why: str) -> Answered:
        self._note(request, asked, "refused", why=why)
        title = "Not connected" if isinstance(asked, Pending) else "Not logged in"
        return Answered(problem_page(title, f"{why}.", status=502))

    def _note(self, request: Request, asked: Asked, outcome: str, **details: object) -> None:
        """Write a line about somebody who is not let in, unless there were many just now."""
        if not self._lines.wait(None):
            self._lines.take(None)
            self._visits.report(request, asked, "login", outcome, login=None, **details)
