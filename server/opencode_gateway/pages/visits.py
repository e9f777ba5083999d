"""What the pages of a login share: what it is for, forms that are the browser's own, and lines of the audit log."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import quote, urlsplit

from starlette.responses import Response

from opencode_gateway.audit import PAGES, AuditEvent
from opencode_gateway.oauth.requests import Pending
from opencode_gateway.pages.forms import foreign, read_fields, start_again
from opencode_gateway.pages.rendering import page
from opencode_pages.visits import Answered, redirect

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.routing import Route

    from opencode_gateway.oauth.requests import Asked, PendingRequests
    from opencode_gateway.pages.browser_cookies import BrowserCookies, Page
    from opencode_gateway.pages.sessions import PageSessions
    from opencode_gateway.people.directory import Person
    from opencode_gateway.sign_in.step import Kind, Proof

T = TypeVar("T", bound="Asked")
LOGIN_PATH = "/login"
CONSENT_PATH = "/consent"


class LoginPages(Protocol):
    """The way to log in: between what it is for and the consent page, or the page of ours that it is for."""

    @property
    def at(self) -> str | None:
        """Where people log in, for them to read; None: here."""

    def routes(self) -> list[Route]:
        """Return its pages, of which `LOGIN_PATH` is where a person comes first."""

    def proved(self, request: Request, signed: str) -> tuple[Person, Proof] | None:
        """Return who logged in for this pending request from this browser, and how; None if nobody did."""


class LoginVisits:
    """Reads what browsers bring, and gives them what they bring back.

    Args:
        requests: reads what was signed.
        kind: how people log in.
        browsers: knows cookies.
        sessions: of our own pages.
        public_url: as in the configuration.
        on_event: hears of logins and answers.
    """

    def __init__(
        self,
        requests: PendingRequests,
        kind: Kind,
        browsers: BrowserCookies,
        sessions: PageSessions,
        *,
        public_url: str,
        on_event: Callable[[AuditEvent], None],
    ) -> None:
        self.browsers = browsers
        self._sessions = sessions
        self._requests = requests
        self._kind = kind
        self._site = urlsplit(public_url).netloc
        self._on_event = on_event

    def pending(self, signed: str) -> tuple[str, Pending]:
        """Return a pending request as it is signed and as it is; else answer that it is over."""
        pending = self._requests.read(signed)
        if pending is None:
            raise Answered(
                start_again(
                    "This request is over", "A request to connect lasts ten minutes, and this one is not good now."
                )
            )
        return signed, pending

    def asked(self, signed: str) -> tuple[str, Asked]:
        """Return what a login is for, as it is signed and as it is; else answer that it is over."""
        visit = self._requests.read_visit(signed)
        return self.pending(signed) if visit is None else (signed, visit)

    async def form(
        self, request: Request, of: Page, read: Callable[[str], tuple[str, T]]
    ) -> tuple[Callable[[str], str], str, T, str]:
        """Return the fields of a form that this browser got from us for its request; else answer what is wrong.

        `read`: `asked`, or `pending` where there must be a client.
        """
        # Sent by every current browser. A request without it has its token to show, as any other.
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise Answered(foreign())
        fields = await read_fields(request)
        signed, asked = read(fields("request"))
        on_pages = not isinstance(asked, Pending)
        mark = self.browsers.known(request)
        if mark is None:
            raise Answered(
                start_again(
                    "Your browser sent no cookie back",
                    "This page needs cookies until you are done: allow them for this site, or leave the private tab.",
                    on_pages=on_pages,
                )
            )
        if not self.browsers.is_token(fields("token"), mark, signed, of):
            raise Answered(foreign(on_pages=on_pages))
        return fields, signed, asked, mark

    async def logged_in(
        self, request: Request, person: Person, proof: Proof, asked: Asked, *, signed: str, mark: str
    ) -> Response:
        """Lead somebody on who has just logged in: to the consent page, or to the page of ours that they came for."""
        device = self.browsers.device(request, person.login)
        if isinstance(asked, Pending):
            response = onward(CONSENT_PATH, signed)
            self.browsers.logged_in(response, person, mark, signed, device)
            return response
        response = redirect(asked.target)
        # A new secret at each login: one that somebody planted in this browser before gets nothing.
        secret, before = self.browsers.begin_session(response), self.browsers.session(request)
        await self._sessions.begin(secret, person, proof, before=before, address=address_of(request))
        self.browsers.remember(response, person, device)
        return response

    def with_token(
        self,
        request: Request,
        signed: str,
        asked: Asked,
        of: Page,
        values: dict[str, object],
        *,
        status: int,
        wait: float | None = None,
        has_script: bool = False,
    ) -> Response:
        """Return a page with a form, which this browser alone can send."""
        # The mark goes into the form as well as into a cookie, and the cookie needs a response first.
        marked = Response()
        mark = self.browsers.mark(request, marked)
        shown: dict[str, object] = {
            "site": self._site,
            "request": signed,
            **(_of_client(asked) if isinstance(asked, Pending) else {"client": None}),
            "token": self.browsers.token(mark, signed, of),
        }
        leads_away = of == "consent"
        response = page(
            f"{of}.html", shown | values, status=status, leads_away=leads_away, has_script=has_script, wait=wait
        )
        response.raw_headers.extend(header for header in marked.raw_headers if header[0] == b"set-cookie")
        return response

    def report(
        self, request: Request, asked: Asked, event: str, outcome: str, *, login: str | None, **details: object
    ) -> None:
        """Write down what a person did."""
        client = asked if isinstance(asked, Pending) else None
        self._on_event(
            AuditEvent(
                event=event,
                outcome=outcome,
                login=login,
                kind=self._kind,
                client_id=client.client_id if client else None,
                client_name=client.client_name if client else PAGES,
                address=address_of(request),
                details=details,
            )
        )


def _of_client(pending: Pending) -> dict[str, object]:
    return {
        "client": pending.client_name,
        "vouched_by": urlsplit(pending.client_id).hostname if pending.document else None,
        "returns_to": pending.redirect_host,
        "resource": pending.resource,
    }


def address_of(request: Request) -> str:
    """Return where a request comes from."""
    return request.client.host if request.client else ""


def digest(*parts: str) -> bytes:
    """Return a key for what is remembered in memory."""
    return hashlib.sha256(" ".join(parts).encode(errors="replace")).digest()


def over(*, on_pages: bool = False) -> Response:
    """Return a page about a step that was taken before."""
    return start_again(
        "This step is over", "It was answered already, or took too long.", status=403, on_pages=on_pages
    )


def onward(path: str, signed: str) -> Response:
    """Lead a browser to another page of ours about the same request."""
    return redirect(f"{path}?request={quote(signed, safe='')}")
