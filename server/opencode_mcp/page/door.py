"""Who comes in: the one browser that opened the link, which works once. See `opencode_pages.parts.Door`.

Other programs and web pages on this machine reach the port, too. Without the link's secret none has a session; a page
that names us by a name of its own, as after DNS rebinding, is turned away by `Host`; and a form counts only with its
session's token, sent by our own pages.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from opencode_mcp.caller import account
from opencode_pages.forms import TOO_LONG, BadForm, read_values
from opencode_pages.parts import Visitor
from opencode_pages.paths import INBOX_PATH
from opencode_pages.rendering import problem_page

if TYPE_CHECKING:
    from starlette.requests import Request

    from opencode_pages.forms import Fields

ENTER_PATH: Final = "/enter"
"""Behind it the link's secret."""
MAX_FORM_BYTES: Final = 300_000
"""More than any form of ours sends: a question's items with 4,000 characters each, percent-encoded."""
MAX_FIELDS: Final = 1_000
_ANEW: Final = "For another link, end `opencode-mcp --page` in its terminal with Ctrl-C and start it again."


class LocalDoor:
    """Lets in who has the link, once; `origin`: how we are addressed, as `http://127.0.0.1:8123`."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._secret = secrets.token_urlsafe(32)
        self._session = ""
        # Cookies know no ports: another server on this machine may have one of the same name.
        self._cookie = f"opencode-page-{origin.rpartition(':')[2]}"
        who = account()
        self._visitor = Visitor(who.login, who.login, frozenset({"observe", "approve", "drive"}))

    @property
    def link(self) -> str:
        """The link that leads in, as long as nobody came."""
        return f"{self._origin}{ENTER_PATH}/{self._secret}"

    def routes(self) -> list[Route]:
        """Return the route of the link, and of the bare address."""
        return [
            Route(f"{ENTER_PATH}/{{secret}}", self._enter, methods=["GET"]),
            Route("/", self._start, methods=["GET"]),
        ]

    async def _start(self, request: Request) -> Response:
        del request
        return RedirectResponse(INBOX_PATH, 303)

    async def _enter(self, request: Request) -> Response:
        if not self._secret or not _same(str(request.path_params["secret"]), self._secret):
            return problem_page("This link does not lead in", "It works once, and was used.", _ANEW, status=403)
        self._secret, self._session = "", secrets.token_urlsafe(32)
        response = RedirectResponse(INBOX_PATH, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
        response.set_cookie(self._cookie, self._session, httponly=True, samesite="strict", path="/")
        return response

    async def visitor(self, request: Request) -> Visitor | Response:
        """See `Door`."""
        if self._session and _same(request.cookies.get(self._cookie, ""), self._session):
            return self._visitor
        return problem_page(
            "Open the link first", "The one that `opencode-mcp --page` printed: it works once.", _ANEW, status=403
        )

    def token(self, request: Request, visitor: Visitor, purpose: str) -> str:
        """See `Door`."""
        del request, visitor
        return hmac.digest(self._session.encode(), purpose.encode(), "sha256").hex()

    async def fields(self, request: Request, visitor: Visitor, purpose: str) -> Fields | Response:
        """See `Door`."""
        headers = request.headers
        is_ours = headers.get("origin", self._origin) == self._origin
        is_ours = is_ours and headers.get("sec-fetch-site", "same-origin") == "same-origin"
        if not is_ours:
            return _refused("It was not sent by our own page.", 403)
        try:
            found = await read_values(request, MAX_FORM_BYTES, MAX_FIELDS)
        except BadForm as bad:
            why = "It is too large." if bad.status == TOO_LONG else "It cannot be read."
            return _refused(why, bad.status)
        if not _same("".join(found.get("token", [])), self.token(request, visitor, purpose)):
            return _refused("It is of an earlier visit: load the page anew.", 403)
        return lambda name: found.get(name, [])

    async def leave(self, request: Request, visitor: Visitor) -> Response:
        """See `Door`."""
        del request, visitor
        self._session = ""
        response = problem_page("You are logged out", _ANEW, status=200)
        response.delete_cookie(self._cookie, path="/", httponly=True, samesite="strict")
        return response


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _refused(why: str, status: int) -> Response:
    return problem_page(
        "This form was not taken", why, "Nothing was decided.", onward=(INBOX_PATH, "To your inbox"), status=status
    )
