"""HTML for people: templates that escape everything, own files alone, headers against frames and caches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from opencode_common.times import moment_text
from opencode_pages.assets import address

if TYPE_CHECKING:
    from starlette.responses import Response

_OWN: Final = Path(__file__).with_name("templates")
_MARKS: Final = re.compile("⟨[^⟩]*⟩")
"""What `opencode_common.reveal` adds."""
_CODE: Final = re.compile(r"`([^`<>]+)`")
_POLICY: Final = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'"
_WITH_SCRIPT: Final = (
    f"{_POLICY}; script-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; img-src 'self'"
)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # `no-referrer` would make browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    # No Cross-Origin-Opener-Policy: a chat service that opens us in a popup would never hear from it again.
}


def marked(text: str) -> Markup:
    """Return a revealed text with its marks set off, so that they are not read as part of it."""
    return Markup(_MARKS.sub(lambda mark: f"<mark>{mark[0]}</mark>", str(escape(text))))  # noqa: S704 — escaped first


def worded(text: str) -> Markup:
    """Return a sentence of ours like `marked`, with what stands between backticks set as code.

    What holds a mark keeps its backticks: tags could overlap there.
    """
    return Markup(_CODE.sub(r"<code>\1</code>", str(marked(text))))  # noqa: S704 — escaped by `marked`


class Templates:
    """The templates of these pages, and more of whoever serves them.

    Args:
        directory: of the latter. They may extend `base.html`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._environment = Environment(
            loader=FileSystemLoader([_OWN] if directory is None else [directory, _OWN]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals["asset"] = address
        self._environment.filters |= {"marked": marked, "worded": worded, "moment": moment_text}

    def text(self, template: str, values: dict[str, object]) -> str:
        """Return what a template makes of its values."""
        return self._environment.get_template(template).render(values)

    def page(
        self,
        template: str,
        values: dict[str, object],
        *,
        status: int = 200,
        leads_away: bool = False,
        has_script: bool = False,
        wait: float | None = None,
    ) -> Response:
        """Return a page.

        Args:
            template: its file's name.
            values: what it shows.
            status: of HTTP.
            leads_away: its form ends at the client. Browsers hold each redirect after a form to `form-action`, also
                those that the client's own site answers with, which nobody here can list: that page has none.
            has_script: it has a script of ours, which asks us alone. There is never one in a page itself.
            wait: seconds after which another attempt makes sense.
        """
        headers = dict(_HEADERS)
        policy = _WITH_SCRIPT if has_script else _POLICY
        headers["Content-Security-Policy"] = policy if leads_away else f"{policy}; form-action 'self'"
        if wait is not None:
            headers["Retry-After"] = str(max(1, round(wait)))
        return HTMLResponse(self.text(template, values), status, headers)


TEMPLATES: Final = Templates()
page: Final = TEMPLATES.page


def problem_page(
    title: str,
    *paragraphs: str,
    command: str | None = None,
    onward: tuple[str, str] | None = None,
    status: int = 400,
) -> Response:
    """Return a page that says what is wrong and what to do.

    Args:
        title: in a line.
        paragraphs: the rest.
        command: for the relay, shown after the text.
        onward: path and name of a page that leads on.
        status: of HTTP.
    """
    values: dict[str, object] = {"title": title, "paragraphs": paragraphs, "command": command, "onward": onward}
    return page("problem.html", values, status=status)
