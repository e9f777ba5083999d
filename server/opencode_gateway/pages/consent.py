"""The page on which a person who has just logged in says whether a client may act for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_gateway.capabilities import MEANING
from opencode_gateway.errors import CommandRefused, GatewayError
from opencode_gateway.oauth.requests import LIFETIME_SECONDS
from opencode_gateway.pages.forms import of_another, start_again
from opencode_gateway.pages.visits import LOGIN_PATH, digest, onward, over
from opencode_gateway.sign_in.throttle import Buckets, Budget
from opencode_pages.rendering import problem_page
from opencode_pages.visits import Answered, redirect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from starlette.requests import Request
    from starlette.responses import Response

    from opencode_gateway.capabilities import Capability
    from opencode_gateway.oauth.provider import Provider
    from opencode_gateway.oauth.requests import Pending
    from opencode_gateway.pages.visits import LoginPages, LoginVisits
    from opencode_gateway.people.directory import Person

ANSWERS: Final = Budget(1, LIFETIME_SECONDS)
"""To one request: a browser that keeps the cookie that it was told to drop gets no second code."""
_MAX_ANSWERED: Final = 1000
"""Only people who logged in add to them."""


class ConsentPages:
    """Shows what is asked for, and takes the answer."""

    def __init__(
        self, provider: Provider, visits: LoginVisits, login: LoginPages, clock: Callable[[], float]
    ) -> None:
        self._provider = provider
        self._visits = visits
        self._login = login
        self._answered = Buckets(ANSWERS, clock, max_keys=_MAX_ANSWERED)

    async def show(self, request: Request) -> Response:
        """Show what the client asks for."""
        signed, pending = self._visits.pending(request.query_params.get("request", ""))
        proved = self._login.proved(request, signed)
        if proved is None:
            return onward(LOGIN_PATH, signed)
        if self._answered.wait(digest(signed)):
            raise Answered(over())
        return self._page(request, signed, pending, proved[0], ticked=pending.capabilities)

    async def take(self, request: Request) -> Response:
        """Send the person back to the client, with a code or without."""
        fields, signed, pending, _ = await self._visits.form(request, "consent", self._visits.pending)
        proved = self._login.proved(request, signed)
        if proved is None or self._answered.wait(digest(signed)):
            raise Answered(over())
        person, proof = proved
        chosen = [each for each in _grantable(pending, person) if fields(f"capability-{each}")]
        decision = fields("decision")
        if decision not in {"allow", "deny"}:
            raise Answered(start_again("This form is not complete", "The gateway did not understand it."))
        if decision == "allow" and not chosen:
            message = "Tick at least one thing that it may do, or do not allow it."
            return self._page(request, signed, pending, person, ticked=(), message=message, status=400)
        # Counted before anything is waited for: a second click comes meanwhile.
        self._answered.take(digest(signed))
        try:
            if decision == "allow":
                location = await self._provider.grant(pending, person.login, chosen, proof)
                self._visits.report(request, pending, "consent", "allowed", login=person.login, capabilities=chosen)
            else:
                location = self._provider.refuse(pending)
                self._visits.report(request, pending, "consent", "denied", login=person.login)
        except GatewayError as error:
            self._answered.give_back(digest(signed))
            if not isinstance(error, CommandRefused):
                raise
            self._visits.report(request, pending, "consent", "refused", login=person.login)
            raise Answered(start_again("This is not possible", f"The gateway says: {error}.", status=409)) from None
        response = redirect(location)
        self._visits.browsers.end_login(response)
        return response

    def _page(
        self,
        request: Request,
        signed: str,
        pending: Pending,
        person: Person,
        *,
        ticked: Iterable[Capability],
        message: str | None = None,
        status: int = 200,
    ) -> Response:
        if pending.only_login not in {None, person.login}:
            raise Answered(of_another(pending.client_name, person.name))
        grantable = _grantable(pending, person)
        if not grantable:
            raise Answered(
                problem_page(
                    "You may not do what this client asks for",
                    f"{person.name} has none of the capabilities that it needs. Ask the owner of this relay.",
                    status=403,
                )
            )
        values: dict[str, object] = {
            "user": person.name,
            "at": self._login.at,
            "message": message,
            "capabilities": [(each, MEANING[each], each in ticked) for each in grantable],
        }
        return self._visits.with_token(request, signed, pending, "consent", values, status=status)


def _grantable(pending: Pending, person: Person) -> list[Capability]:
    return [each for each in person.capabilities if each in pending.capabilities]
