"""HTML for people: templates that escape everything, no script, one stylesheet, headers against frames and caches."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

if TYPE_CHECKING:
    from starlette.requests import Request

STYLE_PATH: Final = "/pages.css"
_TEMPLATES: Final = Path(__file__).with_name("templates")
_STYLE: Final = (_TEMPLATES / "pages.css").read_bytes()
_ENVIRONMENT: Final = Environment(
    loader=FileSystemLoader(_TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals["style"] = f"{STYLE_PATH}?{hashlib.sha256(_STYLE).hexdigest()[:16]}"
_POLICY: Final = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # `no-referrer` would make browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    # No Cross-Origin-Opener-Policy: a chat service that opens us in a popup would never hear from it again.
}


def page(
    template: str,
    values: dict[str, object],
    *,
    status: int = 200,
    leads_away: bool = False,
    wait: float | None = None,
) -> Response:
    """Return a page.

    Args:
        template: its file's name.
        values: what it shows.
        status: of HTTP.
        leads_away: its form ends at the client. Browsers hold each redirect after a form to `form-action`, also those
            that the client's own site answers with, which nobody here can list: that page has none.
        wait: seconds after which another attempt makes sense.
    """
    headers = dict(_HEADERS)
    headers["Content-Security-Policy"] = _POLICY if leads_away else f"{_POLICY}; form-action 'self'"
    if wait is not None:
        headers["Retry-After"] = str(max(1, round(wait)))
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(values), status, headers)


def problem_page(title: str, *paragraphs: str, command: str | None = None, status: int = 400) -> Response:
    """Return a page that says what is wrong and what to do. `command`: for the relay, shown after the text."""
    return page("problem.html", {"title": title, "paragraphs": paragraphs, "command": command}, status=status)


def unavailable_page() -> Response:
    """Return a page for a person whose step cannot be taken while our own files do not serve."""
    return problem_page(
        "This did not work",
        "The gateway cannot use its files just now. Wait a minute, then start again from your chat client.",
        status=503,
    )


async def style(request: Request) -> Response:
    """Answer with the stylesheet, whose address changes with it."""
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(_STYLE, media_type="text/css", headers=headers)
