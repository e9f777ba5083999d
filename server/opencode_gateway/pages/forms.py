"""The forms of a login: their fields, and in plain words why one cannot be taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_pages.forms import TOO_LONG, BadForm, read_values
from opencode_pages.paths import INBOX_PATH
from opencode_pages.rendering import problem_page
from opencode_pages.visits import Answered

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

_MAX_BODY: Final = 32 * 1024
_MAX_FIELDS: Final = 20
_FROM_CHAT: Final = "Start again from your chat client: connect this relay anew."
_TO_PAGES: Final = (INBOX_PATH, "To your inbox")


async def read_fields(request: Request) -> Callable[[str], str]:
    """Return what gives a field's first value, or an empty one.

    Raises:
        Answered: it is no form, or too large a one.
    """
    try:
        values = await read_values(request, _MAX_BODY, _MAX_FIELDS)
    except BadForm as bad:
        if bad.status == TOO_LONG:
            raise Answered(
                start_again("This form is too long", "No name or password is that long.", status=bad.status)
            ) from None
        raise Answered(
            start_again("This form is not complete", "The gateway did not understand it.", status=bad.status)
        ) from None
    return lambda name: values.get(name, [""])[0]


def start_again(title: str, reason: str, *, status: int = 400, on_pages: bool = False) -> Response:
    """Return a page about a step that cannot be repeated here; `on_pages`: no chat client led to it."""
    if on_pages:
        return problem_page(title, reason, onward=_TO_PAGES, status=status)
    return problem_page(title, reason, _FROM_CHAT, status=status)


def foreign(*, on_pages: bool = False) -> Response:
    """Return a page about a form that we did not give this browser for this request, or too long ago."""
    return start_again(
        "This form does not belong to this page",
        "It came from elsewhere, or lay open for too long.",
        status=403,
        on_pages=on_pages,
    )


def of_another(client: str, user: str) -> Response:
    """Return a page about a client that was let in without a window for whoever connected it before."""
    return problem_page(
        "This client is not yours yet",
        f"Another person connected {client} from this browser before, and can do so again. For {user} it is new: "
        "the owner opens a window on the relay, and you connect anew from your chat.",
        command="sudo opencode-gateway clients allow",
        status=403,
    )
