"""What all pages share: the pending request, forms that are the browser's own, and lines of the audit log."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

from starlette.responses import RedirectResponse, Response

from opencode_gateway.audit import Event
from opencode_gateway.pages.browsers import Browsers
from opencode_gateway.pages.forms import Answered, foreign, read_fields, start_again
from opencode_gateway.pages.rendering import page

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.routing import Route

    from opencode_gateway.oauth.requests import Pending, PendingRequests
    from opencode_gateway.pages.browsers import Page
    from opencode_gateway.people.directory import Person
    from opencode_gateway.sign_in.step import Kind, Proof

LOGIN_PATH = "/login"
CONSENT_PATH = "/consent"


class LoginPages(Protocol):
    """The way to log in: between the pending request and the consent page."""

    @property
    def at(self) -> str | None:
        """Where people log in, for them to read; None: here."""

    def routes(self) -> list[Route]:
        """Return its pages, of which `LOGIN_PATH` is where a person comes first."""

    def proved(self, request: Request, signed: str) -> tuple[Person, Proof] | None:
        """Return who logged in for this pending request from this browser, and how; None if nobody did."""


class Visits:
    """Reads what browsers bring, and gives them what they bring back.

    Args:
        requests: reads what `/authorize` signed.
        kind: how people log in.
        key: the service's own; see `requests.signing_key`.
        public_url: as in the configuration.
        on_event: hears of logins and answers.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        requests: PendingRequests,
        kind: Kind,
        *,
        key: bytes,
        public_url: str,
        on_event: Callable[[Event], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.browsers = Browsers(key, https=public_url.startswith("https:"), clock=clock)
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

    async def form(self, request: Request, of: Page) -> tuple[Callable[[str], str], str, Pending, str]:
        """Return the fields of a form that this browser got from us for its request; else answer what is wrong."""
        # Sent by every current browser. A request without it has its token to show, as any other.
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise Answered(foreign())
        fields = await read_fields(request)
        signed, pending = self.pending(fields("request"))
        mark = self.browsers.known(request)
        if mark is None:
            raise Answered(
                start_again(
                    "Your browser sent no cookie back",
                    "This page needs cookies until you are done: allow them for this site, or leave the private tab.",
                )
            )
        if not self.browsers.is_token(fields("token"), mark, signed, of):
            raise Answered(foreign())
        return fields, signed, pending, mark

    def with_token(
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
        """Return a page with a form, which this browser alone can send."""
        # The mark goes into the form as well as into a cookie, and the cookie needs a response first.
        marked = Response()
        mark = self.browsers.mark(request, marked)
        shown: dict[str, object] = {
            "site": self._site,
            "client": pending.client_name,
            "vouched_by": urlsplit(pending.client_id).hostname if pending.document else None,
            "returns_to": pending.redirect_host,
            "resource": pending.resource,
            "request": signed,
            "token": self.browsers.token(mark, signed, of),
        }
        response = page(f"{of}.html", shown | values, status=status, leads_away=of == "consent", wait=wait)
        response.raw_headers.extend(header for header in marked.raw_headers if header[0] == b"set-cookie")
        return response

    def report(
        self, request: Request, pending: Pending, event: str, outcome: str, *, login: str | None, **details: object
    ) -> None:
        """Write down what a person did."""
        self._on_event(
            Event(
                event=event,
                outcome=outcome,
                login=login,
                kind=self._kind,
                client_id=pending.client_id,
                client_name=pending.client_name,
                address=address_of(request),
                details=details,
            )
        )


def address_of(request: Request) -> str:
    """Return where a request comes from."""
    return request.client.host if request.client else ""


def digest(*parts: str) -> bytes:
    """Return a key for what is remembered in memory."""
    return hashlib.sha256(" ".join(parts).encode(errors="replace")).digest()


def over() -> Response:
    """Return a page about a step that was taken before."""
    return start_again("This step is over", "It was answered already, or took too long.", status=403)


def onward(path: str, signed: str) -> Response:
    """Lead a browser to another page of ours about the same request."""
    return redirect(f"{path}?request={quote(signed, safe='')}")


def redirect(location: str) -> Response:
    """Lead a browser on."""
    # 303: a browser must not send the form on (RFC 9700, 4.12).
    return RedirectResponse(location, 303, {"Cache-Control": "no-store", "Referrer-Policy": "same-origin"})
