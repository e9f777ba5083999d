"""The door of our own pages: who may come in, and whose forms are taken. See `opencode_pages.parts.Door`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pydantic import ValidationError
from starlette.responses import PlainTextResponse

from opencode_gateway.errors import GatewayError
from opencode_gateway.oauth.requests import PageVisit
from opencode_gateway.pages.visits import LOGIN_PATH, onward
from opencode_pages.forms import TOO_LONG, BadForm, read_values
from opencode_pages.parts import Visitor
from opencode_pages.paths import ASKS_PATH, INBOX_PATH
from opencode_pages.rendering import problem_page
from opencode_pages.visits import redirect

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from opencode_gateway.oauth.requests import PendingRequests
    from opencode_gateway.pages.browser_cookies import BrowserCookies
    from opencode_gateway.pages.sessions import PageSessions
    from opencode_pages.forms import Fields

LOGGED_OUT: Final = "/"
"""Where somebody is led who has logged out."""
_MAX_BYTES: Final = 60 * 1024
_MAX_FIELDS: Final = 200
"""Of a form: boxes to tick are a field each."""
_AGAIN: Final = (INBOX_PATH, "To your inbox")
_log = logging.getLogger(__name__)


class PageDoor:
    """See `Door`.

    Args:
        sessions: who is logged in.
        browsers: knows cookies and tokens.
        requests: signs where a login leads back to.
    """

    def __init__(self, sessions: PageSessions, browsers: BrowserCookies, requests: PendingRequests) -> None:
        self._sessions = sessions
        self._browsers = browsers
        self._requests = requests

    async def visitor(self, request: Request) -> Visitor | Response:
        """See `Door`. A script, which can show no login, hears 401."""
        secret = self._browsers.session(request)
        try:
            found = None if secret is None else await self._sessions.find(secret)
        except GatewayError:
            _log.exception("who is logged in cannot be looked up")
            return _unavailable()
        if found is None:
            return self._to_login(request)
        person = found.person
        return Visitor(person.login, person.name, frozenset(person.capabilities), found.id)

    def token(self, request: Request, visitor: Visitor, purpose: str) -> str:
        """See `Door`."""
        del request  # the session says all
        return self._browsers.session_token(visitor.session, purpose)

    async def fields(self, request: Request, visitor: Visitor, purpose: str) -> Fields | Response:
        """See `Door`."""
        # Sent by every current browser. A request without it has its token to show, as any other.
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return _foreign()
        try:
            values = await read_values(request, _MAX_BYTES, _MAX_FIELDS)
        except BadForm as bad:
            why = "It is too long." if bad.status == TOO_LONG else "The gateway did not understand it."
            return problem_page("This form is not taken", why, "Go back, and try again.", status=bad.status)
        tokens = values.get("token", [])
        if len(tokens) != 1 or not self._browsers.is_session_token(tokens[0], visitor.session, purpose):
            return _foreign()
        return lambda name: values.get(name, [])

    async def leave(self, request: Request, visitor: Visitor) -> Response:
        """See `Door`."""
        del request  # the visitor came with it
        try:
            await self._sessions.end(visitor.session, "logged-out")
        except GatewayError:
            _log.exception("a session cannot be ended")
            return _unavailable()
        response = redirect(LOGGED_OUT)
        self._browsers.end_session(response)
        return response

    def _to_login(self, request: Request) -> Response:
        is_page = request.headers.get("sec-fetch-mode", "navigate") == "navigate"
        if not is_page or "text/event-stream" in request.headers.get("accept", ""):
            return PlainTextResponse("Log in first\n", 401)
        return onward(LOGIN_PATH, self._requests.sign_visit(_visit(request)))


def _visit(request: Request) -> PageVisit:
    """Return the page that a request is for: a form that came too late leads to the page that it was on."""
    path, query = quote(request.url.path), request.url.query
    if request.method not in {"GET", "HEAD"}:
        path, query = path if path.startswith(f"{ASKS_PATH}/") else INBOX_PATH, ""
    try:
        return PageVisit(target=f"{path}?{query}" if query else path)
    except ValidationError:
        return PageVisit(target=INBOX_PATH)


def _foreign() -> Response:
    return problem_page(
        "This form does not belong to this page",
        "It came from elsewhere, or lay open for too long. Nothing was done.",
        onward=_AGAIN,
        status=403,
    )


def _unavailable() -> Response:
    return problem_page(
        "This cannot be had just now",
        "The gateway cannot use its files. Wait a minute, and try again.",
        onward=_AGAIN,
        status=503,
    )
