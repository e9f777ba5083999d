"""The pages of a login: for a client, whose request one consent page answers then, and for our own pages.

What it is for is in `request`, signed (`oauth.requests`), and who has just logged in is in a signed cookie
(`browsers`). For strangers nothing is stored; which requests were answered lies in memory for as long as they last.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from starlette.routing import Route

from opencode_gateway.errors import ConfigError, GatewayError
from opencode_gateway.pages.consent import ConsentPages
from opencode_gateway.pages.password import PasswordPages
from opencode_gateway.pages.rendering import unavailable_page
from opencode_gateway.pages.visits import CONSENT_PATH, LoginVisits
from opencode_gateway.sign_in.password import Logins
from opencode_pages.assets import STYLE_PATH, asset
from opencode_pages.rendering import problem_page
from opencode_pages.visits import Answered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from opencode_gateway.audit import AuditEvent
    from opencode_gateway.oauth.provider import Provider
    from opencode_gateway.pages.browser_cookies import BrowserCookies
    from opencode_gateway.pages.sessions import PageSessions
    from opencode_gateway.pages.visits import LoginPages
    from opencode_gateway.sign_in.passkeys import Passkeys
    from opencode_gateway.sign_in.provider import ProviderLogins

log = logging.getLogger(__name__)


def routes(
    provider: Provider,
    logins: Logins | ProviderLogins,
    browsers: BrowserCookies,
    sessions: PageSessions,
    *,
    key: bytes,
    public_url: str,
    window: Callable[[], float | None] = lambda: None,
    on_event: Callable[[AuditEvent], None] = lambda event: None,
    monotonic: Callable[[], float] = time.monotonic,
    passkeys: Passkeys | None = None,
) -> list[Route]:
    """Return the routes of the pages.

    Args:
        provider: reads what is asked, and answers it.
        logins: checks who that is, here or elsewhere.
        browsers: knows cookies.
        sessions: of our own pages.
        key: the service's own; see `requests.signing_key`.
        public_url: as in the configuration.
        window: when the enrolment window was opened that is open now, if one is.
        on_event: hears of logins and answers.
        monotonic: seconds, for budgets.
        passkeys: log in where passwords do; None: they do not.
    """
    visits = LoginVisits(provider.requests, logins.kind, browsers, sessions, public_url=public_url, on_event=on_event)
    login: LoginPages
    if isinstance(logins, Logins):
        login = PasswordPages(visits, logins, key=key, window=window, clock=monotonic, passkeys=passkeys)
    else:
        # Imported for this way alone: a provider's signatures bring much with them.
        from opencode_gateway.pages.provider import ProviderPages  # noqa: PLC0415

        login = ProviderPages(provider, visits, logins, clock=monotonic)
    consent = ConsentPages(provider, visits, login, monotonic)
    shown = [
        *login.routes(),
        Route(CONSENT_PATH, consent.show, methods=["GET"]),
        Route(CONSENT_PATH, consent.take, methods=["POST"]),
    ]
    return [
        *(Route(each.path, _answering(each.endpoint), methods=list(each.methods or ())) for each in shown),
        Route(STYLE_PATH, asset, methods=["GET"]),
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
                "The gateway cannot read its list of users. If this relay is yours, this command says what is wrong:",
                command="sudo opencode-gateway doctor",
                status=503,
            )
        except GatewayError:
            log.exception("%s cannot be answered", request.url.path)
            return unavailable_page()

    return answer
