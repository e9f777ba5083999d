"""The gateway's own pages, over the template and the style that all pages share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from opencode_pages.rendering import Templates, problem_page

if TYPE_CHECKING:
    from starlette.responses import Response

TEMPLATES: Final = Templates(Path(__file__).with_name("templates"))
page: Final = TEMPLATES.page


def unavailable_page() -> Response:
    """Return a page for a person whose step cannot be taken while our own files do not serve."""
    return problem_page(
        "This did not work",
        "The gateway cannot use its files just now. Wait a minute, then start again from your chat client.",
        status=503,
    )
